#include "core/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/model/config_fields.h"
#include "core/model/layer_windows.h"
#include "core/model/mapped_file.h"

namespace chorus {
namespace {

using Json = nlohmann::json;

// Limits are several times what any published Llama has, and small enough that no product of two
// of them overflows 64 bits, nor the widths of fused matrices 32.
constexpr int32_t kMaxWidth = 1 << 17;
constexpr int32_t kMaxLayers = 1024;
constexpr int32_t kMaxHeads = 1024;
constexpr int32_t kMaxHeadDim = 1024;
constexpr int32_t kMaxVocabulary = 1 << 22;
constexpr int32_t kMaxPositions = 1 << 20;
constexpr int64_t kMaxConfigBytes = 16 << 20;

struct FamilyName {
  ModelFamily family;
  const char* model_type;
  const char* architecture;
};

constexpr FamilyName kFamilies[] = {
    {ModelFamily::kLlama, "llama", "LlamaForCausalLM"},
    {ModelFamily::kMistral, "mistral", "MistralForCausalLM"},
    {ModelFamily::kMinistral, "ministral", "MinistralForCausalLM"},
    {ModelFamily::kQwen2, "qwen2", "Qwen2ForCausalLM"},
};

std::string ListFamilies(const char* FamilyName::*name) {
  std::string names;
  for (const FamilyName& family : kFamilies) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", family.*name);
  }
  return names;
}

// By model_type, or by architectures where that is missing; both must agree.
absl::StatusOr<ModelFamily> ReadFamily(const ConfigFields& fields) {
  CHORUS_ASSIGN_OR_RETURN(const std::string type, fields.String("model_type", ""));
  const Json* const architectures = fields.Find("architectures");
  if (type.empty() && architectures == nullptr) return fields.Error("model_type", "is missing");
  const auto by_type = std::ranges::find(kFamilies, type, &FamilyName::model_type);
  if (!type.empty() && by_type == std::end(kFamilies)) {
    return fields.Error("model_type", absl::StrCat("'", type, "' is not supported: only ",
                                                   ListFamilies(&FamilyName::model_type), " are"));
  }
  if (architectures == nullptr) return by_type->family;
  const bool is_one = architectures->is_array() && architectures->size() == 1;
  const auto found = std::ranges::find_if(kFamilies, [&](const FamilyName& family) {
    return is_one && architectures->at(0) == family.architecture;
  });
  if (found == std::end(kFamilies)) {
    return fields.Error(
        "architectures",
        absl::StrCat(ConfigFields::Text(*architectures), " is not supported: only one of ",
                     ListFamilies(&FamilyName::architecture), " is"));
  }
  if (!type.empty() && found != by_type) {
    return fields.Error("architectures", absl::StrCat(ConfigFields::Text(*architectures),
                                                      " is not valid for model_type '", type, "'"));
  }
  return found->family;
}

absl::Status CheckFeatures(const ConfigFields& fields) {
  CHORUS_ASSIGN_OR_RETURN(const std::string activation, fields.String("hidden_act", "silu"));
  if (activation != "silu") {
    return fields.Error("hidden_act",
                        absl::StrCat("'", activation, "' is not supported: only 'silu' is"));
  }
  if (fields.Find("quantization_config") != nullptr) {
    return fields.Error("quantization_config", "quantised checkpoints are not supported");
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const ConfigFields& fields, ModelFamily family, ModelConfig& config) {
  CHORUS_ASSIGN_OR_RETURN(config.hidden_size, fields.Count("hidden_size", kMaxWidth, 0));
  CHORUS_ASSIGN_OR_RETURN(config.intermediate_size,
                          fields.Count("intermediate_size", kMaxWidth, 0));
  CHORUS_ASSIGN_OR_RETURN(config.num_layers, fields.Count("num_hidden_layers", kMaxLayers, 0));
  CHORUS_ASSIGN_OR_RETURN(config.num_heads, fields.Count("num_attention_heads", kMaxHeads, 0));
  // What a missing number means differs between the families: only Llama's is safe to take.
  CHORUS_ASSIGN_OR_RETURN(config.num_kv_heads,
                          fields.Count("num_key_value_heads", kMaxHeads,
                                       family == ModelFamily::kLlama ? config.num_heads : 0));
  CHORUS_ASSIGN_OR_RETURN(config.vocab_size, fields.Count("vocab_size", kMaxVocabulary, 0));
  CHORUS_ASSIGN_OR_RETURN(config.max_positions,
                          fields.Count("max_position_embeddings", kMaxPositions, 0));
  if (config.num_heads % config.num_kv_heads != 0) {
    return fields.Error("num_attention_heads", absl::StrCat(config.num_heads,
                                                            " is not valid: must be a multiple of "
                                                            "num_key_value_heads (",
                                                            config.num_kv_heads, ")"));
  }
  if (fields.Find("head_dim") == nullptr && config.hidden_size % config.num_heads != 0) {
    return fields.Error("hidden_size", absl::StrCat(config.hidden_size,
                                                    " is not valid without head_dim: must be "
                                                    "a multiple of num_attention_heads (",
                                                    config.num_heads, ")"));
  }
  CHORUS_ASSIGN_OR_RETURN(config.head_dim, fields.Count("head_dim", kMaxHeadDim,
                                                        config.hidden_size / config.num_heads));
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    return fields.Error("head_dim", absl::StrCat(config.head_dim,
                                                 " is not valid: must be even and "
                                                 "at most ",
                                                 kMaxHeadDim));
  }
  return absl::OkStatus();
}

absl::Status ReadRopeScaling(const ConfigFields& rope, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  // Configurations before Transformers 4.43 call the field "type".
  CHORUS_ASSIGN_OR_RETURN(std::string type, rope.String("type", "default"));
  CHORUS_ASSIGN_OR_RETURN(type, rope.String("rope_type", type));
  CHORUS_ASSIGN_OR_RETURN(const double partial,
                          rope.Number("partial_rotary_factor", 0.0, 1.0, 1.0));
  if (partial != 1.0) return rope.Error("partial_rotary_factor", "only 1.0 is supported");
  if (type == "default") return absl::OkStatus();
  if (type != "linear" && type != "llama3") {
    return rope.Error("rope_type", absl::StrCat("'", type,
                                                "' is not supported: only 'default', "
                                                "'linear' and 'llama3' are"));
  }
  if (rope.Find("factor") == nullptr) return rope.Error("factor", "is missing");
  CHORUS_ASSIGN_OR_RETURN(scaling.factor, rope.Number("factor", 1.0, 1e6, 1.0));
  scaling.type = type == "linear" ? RopeType::kLinear : RopeType::kLlama3;
  if (scaling.type == RopeType::kLinear) return absl::OkStatus();
  for (const char* field : {"low_freq_factor", "high_freq_factor"}) {
    if (rope.Find(field) == nullptr) return rope.Error(field, "is missing");
  }
  CHORUS_ASSIGN_OR_RETURN(scaling.low_freq_factor, rope.Number("low_freq_factor", 1e-6, 1e6, 1.0));
  CHORUS_ASSIGN_OR_RETURN(scaling.high_freq_factor,
                          rope.Number("high_freq_factor", 1e-6, 1e6, 4.0));
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return rope.Error("high_freq_factor", absl::StrCat(scaling.high_freq_factor,
                                                       " is not valid: must be above "
                                                       "low_freq_factor (",
                                                       scaling.low_freq_factor, ")"));
  }
  CHORUS_ASSIGN_OR_RETURN(scaling.original_max_positions,
                          rope.Count("original_max_position_embeddings", kMaxPositions, 0));
  return absl::OkStatus();
}

// theta stands at the top with rope_scaling beside it, or inside rope_parameters (Transformers 5).
absl::Status ReadRope(const ConfigFields& fields, ModelConfig& config) {
  CHORUS_ASSIGN_OR_RETURN(config.rope_theta, fields.Number("rope_theta", 1.0, 1e12, 10000.0));
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* value = fields.Find(name);
    if (value == nullptr) continue;
    if (!value->is_object()) {
      return fields.Error(name, absl::StrCat(ConfigFields::Text(*value),
                                             " is not valid: must be an object or null"));
    }
    const ConfigFields rope(*value, fields.file(), absl::StrCat(name, "."));
    for (const char* kind : {"full_attention", "sliding_attention", "chunked_attention"}) {
      if (rope.Has(kind)) {
        return rope.Error(kind,
                          "rotary parameters of their own per kind of layer are not supported");
      }
    }
    CHORUS_ASSIGN_OR_RETURN(config.rope_theta,
                            rope.Number("rope_theta", 1.0, 1e12, config.rope_theta));
    CHORUS_RETURN_IF_ERROR(ReadRopeScaling(rope, config));
  }
  return absl::OkStatus();
}

// Llama says which projections have biases; in the other families the architecture does.
absl::Status ReadBiases(const ConfigFields& fields, ModelFamily family, ModelConfig& config) {
  if (family == ModelFamily::kLlama) {
    CHORUS_ASSIGN_OR_RETURN(config.attention_bias, fields.Bool("attention_bias", false));
    CHORUS_ASSIGN_OR_RETURN(config.mlp_bias, fields.Bool("mlp_bias", false));
    config.output_bias = config.attention_bias;
  }
  if (family == ModelFamily::kQwen2) config.attention_bias = true;
  return absl::OkStatus();
}

absl::Status ReadEosTokenIds(const ConfigFields& fields, ModelConfig& config) {
  const Json* value = fields.Find("eos_token_id");
  if (value == nullptr) return absl::OkStatus();
  for (const Json& id : value->is_array() ? *value : Json::array({*value})) {
    const bool in_range =
        id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(config.vocab_size);
    if (!in_range) {
      return fields.Error("eos_token_id", absl::StrCat(ConfigFields::Text(*value),
                                                       " is not valid: must be token ids below "
                                                       "vocab_size (",
                                                       config.vocab_size, ")"));
    }
    config.eos_token_ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json, const std::string& file) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is not a JSON object"));
  }
  const ConfigFields fields(root, file);
  ModelConfig config;
  CHORUS_ASSIGN_OR_RETURN(const ModelFamily family, ReadFamily(fields));
  CHORUS_RETURN_IF_ERROR(CheckFeatures(fields));
  CHORUS_RETURN_IF_ERROR(ReadSizes(fields, family, config));
  CHORUS_ASSIGN_OR_RETURN(config.rms_norm_epsilon, fields.Number("rms_norm_eps", 1e-12, 0.1, 1e-6));
  CHORUS_RETURN_IF_ERROR(ReadRope(fields, config));
  CHORUS_ASSIGN_OR_RETURN(config.tie_word_embeddings, fields.Bool("tie_word_embeddings", false));
  CHORUS_RETURN_IF_ERROR(ReadBiases(fields, family, config));
  CHORUS_ASSIGN_OR_RETURN(config.layer_windows, ReadLayerWindows(fields, family, config.num_layers,
                                                                 config.max_positions));
  CHORUS_RETURN_IF_ERROR(ReadEosTokenIds(fields, config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/config.json");
  CHORUS_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(path, kMaxConfigBytes));
  return ParseModelConfig(json, path);
}

absl::StatusOr<ModelConfig> ShapeByName(const std::string& name) {
  ModelConfig config;
  config.rms_norm_epsilon = 1e-5;
  config.rope_theta = 500000.0;
  config.max_positions = 131072;
  config.vocab_size = 128256;
  config.num_kv_heads = 8;
  config.tie_word_embeddings = true;
  config.eos_token_ids = {128001};
  config.rope_scaling = {.type = RopeType::kLlama3, .factor = 32.0};
  if (name == "llama-3.2-1b") {
    config.hidden_size = 2048, config.intermediate_size = 8192, config.num_layers = 16;
    config.num_heads = 32, config.head_dim = 64;
  } else if (name == "llama-3.2-3b") {
    config.hidden_size = 3072, config.intermediate_size = 8192, config.num_layers = 28;
    config.num_heads = 24, config.head_dim = 128;
  } else if (name == "llama-3.1-8b") {
    config.hidden_size = 4096, config.intermediate_size = 14336, config.num_layers = 32;
    config.num_heads = 32, config.head_dim = 128;
    config.tie_word_embeddings = false;
    config.rope_scaling.factor = 8.0;
  } else if (name == "smollm2-135m") {
    config.hidden_size = 576, config.intermediate_size = 1536, config.num_layers = 30;
    config.num_heads = 9, config.num_kv_heads = 3, config.head_dim = 64;
    config.vocab_size = 49152, config.max_positions = 8192;
    config.rope_theta = 100000.0, config.rope_scaling = RopeScaling();
    config.eos_token_ids = {2};
  } else {
    return absl::NotFoundError(absl::StrCat("no shape is named '", name,
                                            "': the names are "
                                            "smollm2-135m, llama-3.2-1b, llama-3.2-3b, "
                                            "llama-3.1-8b"));
  }
  return config;
}

// Llama 3.1's rule, with the wavelength w = 2 pi / frequency and the original context C:
//   w > C / low:   frequency / factor          w < C / high:  frequency
//   otherwise:     with s = (C / w - low) / (high - low), the mixture (1 - s) / factor + s
std::vector<double> RopeFrequencies(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<double> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double& frequency = frequencies[i];
    frequency = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / config.head_dim);
    if (scaling.type == RopeType::kLinear) frequency /= scaling.factor;
    if (scaling.type != RopeType::kLlama3) continue;
    const double turns = scaling.original_max_positions * frequency / (2.0 * std::numbers::pi);
    if (turns < scaling.low_freq_factor) {
      frequency /= scaling.factor;
    } else if (turns <= scaling.high_freq_factor) {
      const double ramp =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      frequency *= (1.0 - ramp) / scaling.factor + ramp;
    }
  }
  return frequencies;
}

}  // namespace chorus
