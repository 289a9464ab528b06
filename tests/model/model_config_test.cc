#include "core/model/model_config.h"

#include <cmath>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

// The fields that matter of the config.json of meta-llama/Llama-3.2-3B.
Json Llama32Config() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "attention_bias": false, "attention_dropout": 0.0, "mlp_bias": false,
    "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 128, "hidden_size": 3072,
    "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "num_attention_heads": 24, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})");
}

absl::StatusOr<ModelConfig> Parse(const Json& json) {
  return ParseModelConfig(json.dump(), "some/config.json");
}

TEST(ModelConfigTest, ReadsLlama32) {
  const auto config = Parse(Llama32Config());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, *ShapeByName("llama-3.2-3b"));
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->num_kv_heads, 8);
  EXPECT_EQ(config->rope_scaling, (RopeScaling{RopeType::kLlama3, 32.0, 1.0, 4.0, 8192}));
  EXPECT_TRUE(config->tie_word_embeddings);
}

TEST(ModelConfigTest, ReadsLlama32OneBillion) {
  Json json = Llama32Config();
  json.update({{"hidden_size", 2048},
               {"num_attention_heads", 32},
               {"num_hidden_layers", 16},
               {"head_dim", 64}});
  EXPECT_EQ(*Parse(json), *ShapeByName("llama-3.2-1b"));
}

TEST(ModelConfigTest, ReadsLlama31WithoutHeadDim) {
  Json json = Llama32Config();
  json.erase("head_dim");
  json.update({{"hidden_size", 4096},
               {"intermediate_size", 14336},
               {"num_attention_heads", 32},
               {"num_hidden_layers", 32},
               {"tie_word_embeddings", false}});
  json["rope_scaling"]["factor"] = 8.0;
  EXPECT_EQ(*Parse(json), *ShapeByName("llama-3.1-8b"));
}

TEST(ModelConfigTest, ReadsSmolLm2WithNullScaling) {
  const Json json = Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_scaling": null,
    "rope_theta": 100000, "tie_word_embeddings": true, "eos_token_id": 2,
    "rope_interleaved": false, "is_llama_config": true})");
  EXPECT_EQ(*Parse(json), *ShapeByName("smollm2-135m"));
}

TEST(ModelConfigTest, ReadsLlama2WithDefaults) {
  const Json json = Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05})");
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_kv_heads, 32);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_FALSE(config->mlp_bias);
  EXPECT_TRUE(config->eos_token_ids.empty());
}

TEST(ModelConfigTest, ReadsLlama3WithSeveralEndTokens) {
  Json json = Llama32Config();
  json["rope_scaling"] = nullptr;
  json["eos_token_id"] = {128001, 128008, 128009};
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_scaling, RopeScaling());
  EXPECT_EQ(config->eos_token_ids, (std::vector<int32_t>{128001, 128008, 128009}));
}

TEST(ModelConfigTest, ReadsThetaAndScalingFromRopeParameters) {
  Json json = Llama32Config();
  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = 12345.0;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_theta, 12345.0);
  EXPECT_EQ(config->rope_scaling.type, RopeType::kLlama3);
}

TEST(ModelConfigTest, ReadsOldSpellingOfLinearScaling) {
  Json json = Llama32Config();
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  const auto config = Parse(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope_scaling.type, RopeType::kLinear);
  EXPECT_EQ(config->rope_scaling.factor, 4.0);
}

using Kind = AttentionWindow::Kind;
constexpr AttentionWindow kFull;

// Llama32Config() as another family's, with a JSON merge patch; 28 layers of 131,072 positions.
std::vector<AttentionWindow> Windows(const char* model_type, const char* patch) {
  const std::map<std::string, const char*> architectures = {{"llama", "LlamaForCausalLM"},
                                                            {"mistral", "MistralForCausalLM"},
                                                            {"ministral", "MinistralForCausalLM"},
                                                            {"qwen2", "Qwen2ForCausalLM"}};
  Json json = Llama32Config();
  json["model_type"] = model_type;
  json["architectures"] = {architectures.at(model_type)};
  json.merge_patch(Json::parse(patch));
  const auto config = Parse(json);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config->layer_windows : std::vector<AttentionWindow>();
}

TEST(ModelConfigWindowTest, EveryLayerOfMistralSlidesUnlessItsWindowIsNull) {
  const auto sliding = [](int32_t size) {
    return std::vector<AttentionWindow>(28, {Kind::kSliding, size});
  };
  for (const char* type : {"mistral", "ministral"}) {
    EXPECT_EQ(Windows(type, R"({"sliding_window": 512})"), sliding(512));
    EXPECT_EQ(Windows(type, "{}"), sliding(4096));  // the default of its class
    EXPECT_TRUE(
        Windows(type, R"({"max_position_embeddings": 512, "sliding_window": 512})").empty());
  }
  Json json = Llama32Config();
  json.update({{"model_type", "mistral"}, {"sliding_window", nullptr}});
  json["architectures"] = {"MistralForCausalLM"};
  EXPECT_TRUE(Parse(json)->layer_windows.empty());
}

TEST(ModelConfigWindowTest, Qwen2SlidesFromMaxWindowLayersOnIfItSaysSo) {
  EXPECT_TRUE(Windows("qwen2", R"({"sliding_window": 512, "max_window_layers": 2})").empty());
  EXPECT_TRUE(Windows("qwen2", R"({"use_sliding_window": true})").empty());  // 28 full layers
  const auto windows = Windows("qwen2", R"({"use_sliding_window": true, "sliding_window": 512,
                                           "max_window_layers": 2})");
  ASSERT_EQ(windows.size(), 28u);
  EXPECT_EQ(windows[1], kFull);
  EXPECT_EQ(windows[2], (AttentionWindow{Kind::kSliding, 512}));
  EXPECT_EQ(windows[27], (AttentionWindow{Kind::kSliding, 512}));
}

TEST(ModelConfigWindowTest, LayerTypesSayItForEveryFamily) {
  const char patch[] = R"({"num_hidden_layers": 3, "sliding_window": 512,
      "use_sliding_window": true, "attention_chunk_size": 64,
      "layer_types": ["full_attention", "sliding_attention", "chunked_attention"]})";
  for (const char* type : {"llama", "mistral", "ministral", "qwen2"}) {
    EXPECT_EQ(Windows(type, patch),
              (std::vector<AttentionWindow>{kFull, {Kind::kSliding, 512}, {Kind::kChunked, 64}}));
  }
}

TEST(ModelConfigWindowTest, SlidingWindowAloneSaysNothingOfALlama) {
  EXPECT_TRUE(Windows("llama", R"({"sliding_window": 512, "attention_chunk_size": 64})").empty());
}

TEST(ModelConfigTest, BiasesFollowTheFamily) {
  Json json = Llama32Config();
  json["attention_bias"] = true;
  EXPECT_TRUE(Parse(json)->attention_bias && Parse(json)->output_bias);
  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  json["attention_bias"] = false;
  EXPECT_TRUE(Parse(json)->attention_bias);
  EXPECT_FALSE(Parse(json)->output_bias);
}

struct Refusal {
  const char* patch;  // JSON merge patch: null removes a field
  const char* named;  // what the error must hold
};

class ModelConfigRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(ModelConfigRefusalTest, NamesFileAndField) {
  Json json = Llama32Config();
  json.merge_patch(Json::parse(GetParam().patch));
  const auto config = Parse(json);
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("some/config.json"));
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(GetParam().named));
}

INSTANTIATE_TEST_SUITE_P(
    All, ModelConfigRefusalTest,
    testing::Values(
        Refusal{R"({"model_type": "mistral"})", "mistral"},
        Refusal{R"({"model_type": 3})", "model_type"},
        Refusal{R"({"model_type": null, "architectures": null})", "model_type"},
        Refusal{R"({"architectures": ["MistralForCausalLM"]})", "MistralForCausalLM"},
        Refusal{R"({"architectures": []})", "architectures"},
        Refusal{R"({"architectures": "LlamaForCausalLM"})", "architectures"},
        Refusal{R"({"model_type": "mistral", "architectures": ["GemmaForCausalLM"]})", "Gemma"},
        Refusal{R"({"model_type": "mistral", "num_key_value_heads": null,
                    "architectures": ["MistralForCausalLM"]})",
                "num_key_value_heads"},
        Refusal{R"({"layer_types": ["full_attention"]})", "layer_types"},
        Refusal{R"({"layer_types": "full_attention"})", "layer_types"},
        Refusal{
            R"({"num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]})",
            R"(layer_types[1]: "linear_attention")"},
        Refusal{R"({"num_hidden_layers": 1, "layer_types": [7]})", "layer_types[0]: 7"},
        Refusal{R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})",
                "sliding_window: is missing: layer_types[0]"},
        Refusal{R"({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]})",
                "attention_chunk_size: is missing: layer_types[0]"},
        Refusal{R"({"model_type": "qwen2", "architectures": null, "num_hidden_layers": 1,
                    "layer_types": ["sliding_attention"]})",
                "use_sliding_window"},
        Refusal{R"({"model_type": "qwen2", "architectures": null, "use_sliding_window": true,
                    "max_window_layers": -1})",
                "max_window_layers: -1"},
        Refusal{R"({"sliding_window": 0})", "sliding_window: 0"},
        Refusal{R"({"sliding_window": 4294967296})", "sliding_window"},
        Refusal{R"({"attention_chunk_size": "big"})", "attention_chunk_size"},
        Refusal{R"({"rope_parameters": {"sliding_attention": {"rope_theta": 10000.0}}})",
                "rope_parameters.sliding_attention"},
        Refusal{R"({"hidden_act": "gelu"})", "gelu"},
        Refusal{R"({"quantization_config": {"bits": 4}})", "quantization_config"},
        Refusal{R"({"hidden_size": null})", "hidden_size"},
        Refusal{R"({"hidden_size": 0})", "hidden_size"},
        Refusal{R"({"hidden_size": -3072})", "hidden_size"},
        Refusal{R"({"hidden_size": 3072.5})", "hidden_size"},
        Refusal{R"({"hidden_size": "3072"})", "hidden_size"},
        Refusal{R"({"hidden_size": 18446744073709551615})", "hidden_size"},
        Refusal{R"({"intermediate_size": null})", "intermediate_size"},
        Refusal{R"({"intermediate_size": 99999999})", "intermediate_size"},
        Refusal{R"({"num_hidden_layers": 100000})", "num_hidden_layers"},
        Refusal{R"({"num_attention_heads": 5000})", "num_attention_heads"},
        Refusal{R"({"num_attention_heads": 25})", "num_attention_heads"},
        Refusal{R"({"num_key_value_heads": 48})", "num_key_value_heads"},
        Refusal{R"({"num_key_value_heads": true})", "num_key_value_heads"},
        Refusal{R"({"head_dim": 127})", "head_dim"},
        Refusal{R"({"head_dim": null, "hidden_size": 3073})", "hidden_size"},
        Refusal{R"({"head_dim": null, "num_attention_heads": 1, "num_key_value_heads": 1})",
                "head_dim"},
        Refusal{R"({"vocab_size": 0})", "vocab_size"},
        Refusal{R"({"vocab_size": 4294967296})", "vocab_size"},
        Refusal{R"({"max_position_embeddings": null})", "max_position_embeddings"},
        Refusal{R"({"max_position_embeddings": 1e9})", "max_position_embeddings"},
        Refusal{R"({"rms_norm_eps": 0})", "rms_norm_eps"},
        Refusal{R"({"rms_norm_eps": -1e-5})", "rms_norm_eps"},
        Refusal{R"({"rms_norm_eps": "1e-5"})", "rms_norm_eps"},
        Refusal{R"({"rope_theta": 0})", "rope_theta"},
        Refusal{R"({"rope_theta": []})", "rope_theta"},
        Refusal{R"({"rope_scaling": "llama3"})", "rope_scaling"},
        Refusal{R"({"rope_scaling": {"rope_type": "yarn"}})", "rope_scaling.rope_type: 'yarn'"},
        Refusal{R"({"rope_scaling": {"rope_type": "dynamic"}})", "dynamic"},
        Refusal{R"({"rope_scaling": {"rope_type": "longrope"}})", "longrope"},
        Refusal{R"({"rope_scaling": {"factor": null}})", "rope_scaling.factor"},
        Refusal{R"({"rope_scaling": {"factor": 0.5}})", "rope_scaling.factor"},
        Refusal{R"({"rope_scaling": {"low_freq_factor": null}})", "low_freq_factor"},
        Refusal{R"({"rope_scaling": {"low_freq_factor": 4.0}})", "high_freq_factor"},
        Refusal{R"({"rope_scaling": {"low_freq_factor": 0}})", "low_freq_factor"},
        Refusal{R"({"rope_scaling": {"original_max_position_embeddings": null}})",
                "original_max_position_embeddings"},
        Refusal{R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})",
                "rope_parameters.partial_rotary_factor"},
        Refusal{R"({"tie_word_embeddings": 1})", "tie_word_embeddings"},
        Refusal{R"({"attention_bias": "no"})", "attention_bias"},
        Refusal{R"({"mlp_bias": 0})", "mlp_bias"},
        Refusal{R"({"eos_token_id": -1})", "eos_token_id"},
        Refusal{R"({"eos_token_id": [2, 128256]})", "eos_token_id"},
        Refusal{R"({"eos_token_id": [[2]]})", "eos_token_id"}));

TEST(ModelConfigTest, RefusesWhatIsNotAnObject) {
  for (const char* text : {"", "[]", "3", "{", "{\"hidden_size\": NaN}", "{\"rope_theta\": 1e999}",
                           "\xff\xfe", "{\"a\": \"\xff\"}"}) {
    const auto config = ParseModelConfig(text, "bad.json");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("bad.json"));
  }
}

TEST(ModelConfigTest, DeepNestingDoesNotOverflowTheStack) {
  const std::string deep(200000, '[');
  EXPECT_FALSE(ParseModelConfig(deep, "deep.json").ok());
  EXPECT_FALSE(ParseModelConfig(deep + std::string(200000, ']'), "deep.json").ok());
}

TEST(ModelConfigTest, SaysThatAFileIsMissing) {
  const auto config = LoadModelConfig("no/such/directory");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("no/such/directory/config.json"));
}

TEST(ModelConfigTest, UnknownShapeListsTheNames) {
  const auto config = ShapeByName("gpt-2");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("llama-3.2-3b"));
}

TEST(RopeFrequenciesTest, DefaultIsAPowerOfTheta) {
  const ModelConfig config = *ShapeByName("smollm2-135m");
  const std::vector<double> frequencies = RopeFrequencies(config);
  ASSERT_EQ(frequencies.size(), 32u);
  EXPECT_EQ(frequencies[0], 1.0);
  EXPECT_NEAR(frequencies[16], std::pow(1e5, -0.5), 1e-15);
  EXPECT_NEAR(frequencies[31], std::pow(1e5, -62.0 / 64.0), 1e-18);
}

TEST(RopeFrequenciesTest, LinearDividesAll) {
  ModelConfig config = *ShapeByName("smollm2-135m");
  const std::vector<double> plain = RopeFrequencies(config);
  config.rope_scaling = {.type = RopeType::kLinear, .factor = 4.0};
  const std::vector<double> scaled = RopeFrequencies(config);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] / 4.0);
}

// The rule of Llama 3.1 written by wavelength, as Hugging Face and Meta publish it.
TEST(RopeFrequenciesTest, Llama3FollowsTheWavelengthRule) {
  for (const char* name : {"llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"}) {
    const ModelConfig config = *ShapeByName(name);
    const double factor = config.rope_scaling.factor;
    const std::vector<double> frequencies = RopeFrequencies(config);
    int num_kept = 0, num_mixed = 0, num_divided = 0;
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double plain = std::pow(500000.0, -2.0 * static_cast<double>(i) / config.head_dim);
      const double wavelength = 2.0 * std::numbers::pi / plain;
      double expected = plain;
      if (wavelength > 8192.0) {
        expected = plain / factor;
        ++num_divided;
      } else if (wavelength >= 2048.0) {
        const double smooth = (8192.0 / wavelength - 1.0) / 3.0;
        expected = (1.0 - smooth) * plain / factor + smooth * plain;
        ++num_mixed;
      } else {
        ++num_kept;
      }
      EXPECT_NEAR(frequencies[i] / expected, 1.0, 1e-12) << name << " pair " << i;
    }
    EXPECT_GT(num_kept, 0);
    EXPECT_GT(num_mixed, 0);
    EXPECT_GT(num_divided, 0);
  }
}

}  // namespace
}  // namespace chorus
