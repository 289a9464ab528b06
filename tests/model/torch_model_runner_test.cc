#include "core/model/torch_model_runner.h"

#include <atomic>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/model/plan_builder.h"
#include "tests/model/safetensors_builder.h"

namespace chorus {
namespace {

using testing::HasSubstr;

constexpr char kTiny[] = "tests/golden/models/tiny_gqa";

std::shared_ptr<const SharedWeights> LoadTiny(ModelDtype dtype = ModelDtype::kFloat32) {
  auto weights = LoadSharedWeights({.model_directory = kTiny, .dtype = dtype, .num_threads = 2});
  EXPECT_TRUE(weights.ok()) << weights.status();
  return *std::move(weights);
}

std::unique_ptr<ModelRunner> MakeRunner(std::shared_ptr<const SharedWeights> weights,
                                        int num_threads = 2) {
  auto runner = CreateTorchModelRunner(std::move(weights),
                                       {.num_threads = num_threads, .kv_cache_bytes = 4 << 20});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

std::vector<int32_t> Tokens(int32_t count, int32_t start) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (start + 53 * i) % 300;
  return tokens;
}

TEST(TorchModelRunnerTest, TellsWhatItLoaded) {
  std::atomic<int> calls{0};
  const auto weights = LoadSharedWeights(
      {.model_directory = kTiny, .num_threads = 2, .progress = [&](int, int) { ++calls; }});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(calls, 3);
  const auto runner = MakeRunner(*weights);
  const ModelInfo& info = runner->info();
  EXPECT_EQ(info.name, "tiny_gqa");
  EXPECT_EQ(info.dtype, "bfloat16");  // what auto means
  EXPECT_EQ(info.device, "cpu");
  EXPECT_EQ(info.vocab_size, 300);
  EXPECT_EQ(info.max_positions, 512);
  EXPECT_EQ(info.num_layers, 2);
  EXPECT_EQ(info.num_heads, 6);
  EXPECT_EQ(info.num_kv_heads, 2);
  EXPECT_EQ(info.head_dim, 32);
  EXPECT_EQ(info.hidden_size, 64);
  EXPECT_EQ(info.kv_bytes_per_token, 2 * 2 * 2 * 32 * 2);
  EXPECT_EQ(info.num_kv_slots, (4 << 20) / info.kv_bytes_per_token);
  EXPECT_GT(info.weight_bytes, 0);
}

TEST(TorchModelRunnerTest, RefusesWhatCannotBeLoaded) {
  const auto code = [](const ModelOptions& options) {
    return LoadSharedWeights(options).status().code();
  };
  EXPECT_EQ(code({}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.model_directory = kTiny, .random_shape = "smollm2-135m"}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.model_directory = "no/such/folder"}), absl::StatusCode::kNotFound);
  EXPECT_EQ(code({.random_shape = "no-such-shape"}), absl::StatusCode::kNotFound);
}

TEST(TorchModelRunnerTest, NamesTheTensorThatDoesNotFitTheConfiguration) {
  const TestFolder folder("misfit");
  std::filesystem::copy_file(std::string(kTiny) + "/model.safetensors",
                             folder.File("model.safetensors"));
  std::string config =
      nlohmann::json::parse(std::ifstream(std::string(kTiny) + "/config.json")).dump();
  const std::string size = "\"intermediate_size\":96";
  config.replace(config.find(size), size.size(), "\"intermediate_size\":97");
  WriteFile(folder.File("config.json"), config);
  const absl::Status status = LoadSharedWeights({.model_directory = folder.path()}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("mlp.gate_proj.weight"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("[97, 64]"));
}

TEST(TorchModelRunnerTest, RefusesAKvCacheWithoutRoomForAToken) {
  const auto weights = LoadTiny();
  for (const int64_t bytes : {int64_t{-1}, int64_t{0}, int64_t{1023}}) {
    EXPECT_EQ(CreateTorchModelRunner(weights, {.kv_cache_bytes = bytes}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(CreateTorchModelRunner(weights, {.kv_cache_bytes = 1024}).ok());
  EXPECT_EQ(
      CreateTorchModelRunner(weights, {.num_threads = 0, .kv_cache_bytes = 4096}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(TorchModelRunnerTest, MemoryThatIsNotToBeHadIsResourceExhausted) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer ends the process on such an allocation";
#endif
  const auto weights = LoadSharedWeights({.random_shape = "smollm2-135m", .num_threads = 2});
  ASSERT_TRUE(weights.ok()) << weights.status();
  // 2^30 slots of 192 values: no machine has the terabytes.
  const auto runner = CreateTorchModelRunner(*weights, {.kv_cache_bytes = INT64_MAX});
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kResourceExhausted) << runner.status();
}

TEST(TorchModelRunnerTest, RunnersThatShareWeightsAgreeBitForBit) {
  const auto weights = LoadTiny();
  const auto first = MakeRunner(weights, 1);
  const auto second = MakeRunner(weights, 3);
  const TestSequence sequence = CausalSequence(Tokens(40, 3), 7);
  const SamplingParams sampling;
  StepPlan plan;
  AppendRows(sequence, 0, 40, plan);
  plan.choices = {GreedyChoice(39, sampling, true)};
  const auto a = first->Run(plan);
  const auto b = second->Run(plan);
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->tokens[0].logits, b->tokens[0].logits);
  EXPECT_EQ(a->tokens[0].token_id, b->tokens[0].token_id);
}

// More rows than stand side by side, rows shared between choices, and choices in any order.
TEST(TorchModelRunnerTest, ChoicesDoNotDependOnHowTheyAreGrouped) {
  const auto runner = MakeRunner(LoadTiny());
  const TestSequence sequence = CausalSequence(Tokens(150, 9), 0);
  const SamplingParams sampling;
  StepPlan plan;
  AppendRows(sequence, 0, 150, plan);
  std::vector<TokenChoice> choices;
  for (int32_t row = 149; row >= 0; --row) choices.push_back(GreedyChoice(row, sampling, true));
  TokenChoice wide;
  wide.rule = CombineRule::kLogitMean;
  wide.sampling = &sampling;
  wide.want_logits = true;
  for (int32_t row = 0; row < 100; ++row) wide.rows.push_back(row);
  choices.insert(choices.begin() + 10, wide);
  plan.choices = choices;
  const auto together = runner->Run(plan);
  ASSERT_TRUE(together.ok()) << together.status();
  ASSERT_EQ(together->tokens.size(), choices.size());
  std::vector<double> mean(300, 0.0);
  for (size_t i = 0; i < choices.size(); i += 7) {
    plan.choices = {choices[i]};
    const auto alone = runner->Run(plan);
    ASSERT_TRUE(alone.ok());
    EXPECT_EQ(alone->tokens[0].logits, together->tokens[i].logits) << i;
  }
  for (int32_t row = 0; row < 100; ++row) {
    const size_t index = static_cast<size_t>(row > 139 ? 149 - row : 150 - row);
    for (size_t j = 0; j < 300; ++j) mean[j] += together->tokens[index].logits[j] / 100.0;
  }
  for (size_t j = 0; j < 300; ++j) EXPECT_NEAR(together->tokens[10].logits[j], mean[j], 1e-5);
}

TEST(TorchModelRunnerTest, AFailedChoiceCostsItselfOnly) {
  const auto runner = MakeRunner(LoadTiny());
  const TestSequence sequence = CausalSequence(Tokens(5, 1), 0);
  const SamplingParams free;
  SamplingParams bound;
  bound.allowed_token_ids = {4};
  const std::vector<int32_t> banned = {4};
  StepPlan plan;
  AppendRows(sequence, 0, 5, plan);
  plan.choices = {GreedyChoice(3, bound, false), GreedyChoice(4, free, false)};
  plan.choices[0].banned_token_ids = &banned;
  const auto result = runner->Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->tokens[0].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(result->tokens[1].status.ok());
}

TEST(TorchModelRunnerTest, AnEmptyStepGivesNothing) {
  const auto result = MakeRunner(LoadTiny())->Run(StepPlan());
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->tokens.empty());
}

TEST(TorchModelRunnerTest, APlanOutOfRangeIsInternal) {
  const auto runner = MakeRunner(LoadTiny());
  const TestSequence sequence = CausalSequence(Tokens(6, 1), 0);
  const SamplingParams sampling;
  StepPlan good;
  AppendRows(sequence, 0, 6, good);
  good.choices = {GreedyChoice(5, sampling, false)};
  ASSERT_TRUE(runner->Run(good).ok());
  const std::vector<void (*)(StepPlan&)> breaks = {
      [](StepPlan& plan) { plan.token_ids[2] = 300; },
      [](StepPlan& plan) { plan.token_ids[2] = -1; },
      [](StepPlan& plan) { plan.positions[0] = 512; },
      [](StepPlan& plan) { plan.positions.pop_back(); },
      [](StepPlan& plan) { plan.slots[5] = 1 << 30; },
      [](StepPlan& plan) { plan.slots.push_back(0); },
      [](StepPlan& plan) { plan.attention.slot_table[3] = -7; },
      [](StepPlan& plan) { plan.attention.slot_table.resize(3); },
      [](StepPlan& plan) { plan.attention.runs.clear(); },
      [](StepPlan& plan) { plan.attention.runs[0].row_end = 7; },
      [](StepPlan& plan) { plan.attention.runs[0].table_begin = 1; },
      [](StepPlan& plan) { plan.attention.runs[0].interval_end = 9; },
      [](StepPlan& plan) { plan.attention.runs[0].scaling = 0; },
      [](StepPlan& plan) { plan.attention.intervals[0].begin = -1; },
      [](StepPlan& plan) { plan.choices[0].rows = {6}; },
      [](StepPlan& plan) { plan.choices[0].rows = {}; },
      [](StepPlan& plan) { plan.choices[0].rows = {1, 2}; },
      [](StepPlan& plan) { plan.choices[0].weights = {0.5f, 0.5f}; },
      [](StepPlan& plan) { plan.choices[0].weights = {0.0f}; },
      [](StepPlan& plan) { plan.choices[0].sampling = nullptr; }};
  for (size_t i = 0; i < breaks.size(); ++i) {
    StepPlan bad = good;
    breaks[i](bad);
    EXPECT_EQ(runner->Run(bad).status().code(), absl::StatusCode::kInternal) << "break " << i;
  }
  EXPECT_TRUE(runner->Run(good).ok());
}

TEST(TorchModelRunnerTest, WindowsNeedTheirIntervalsAndPositions) {
  const auto weights = LoadSharedWeights(
      {.model_directory = "tests/golden/models/tiny_mistral", .dtype = ModelDtype::kFloat32});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto runner = MakeRunner(*weights);
  EXPECT_EQ(runner->info().layer_windows,
            std::vector<AttentionWindow>(2, {AttentionWindow::Kind::kSliding, 7}));
  StepPlan good;
  AppendRows(CausalSequence(Tokens(20, 1), 0), 0, 20, good);
  const std::vector<std::function<void(AttentionPlan&)>> breaks = {
      [](AttentionPlan& plan) { plan.runs[0].windowed_end += 1; },
      [](AttentionPlan& plan) { plan.runs[0].windowed_begin = -1; },
      [](AttentionPlan& plan) { plan.runs[0].position_begin += 1; },
      [](AttentionPlan& plan) { plan.intervals.back().begin = 30; },
      [](AttentionPlan& plan) { plan.intervals.back().position_shift = -1; },
      [](AttentionPlan& plan) { plan.intervals.back().position_shift = 512; }};
  for (size_t i = 0; i < breaks.size(); ++i) {
    StepPlan bad = good;
    breaks[i](bad.attention);
    EXPECT_EQ(runner->Run(bad).status().code(), absl::StatusCode::kInternal) << "break " << i;
  }
  EXPECT_TRUE(runner->Run(good).ok());
}

TEST(TorchModelRunnerTest, AMoveOutOfRangeOrOverAnotherIsInternal) {
  const auto runner = MakeRunner(LoadTiny());
  const TestSequence sequence = CausalSequence(Tokens(6, 1), 0);
  const int32_t num_slots = runner->info().num_kv_slots;
  const auto code = [&](const std::vector<KvMove>& moves) {
    StepPlan plan;
    AppendRows(sequence, 0, 6, plan);
    plan.attention.moves = moves;
    return runner->Run(plan).status().code();
  };
  EXPECT_EQ(code({{2, 20, 511}, {2, num_slots - 1, 0}}), absl::StatusCode::kOk);
  const std::vector<std::vector<KvMove>> bad = {
      {{-1, 20, 1}},
      {{num_slots, 20, 1}},
      {{2, -1, 1}},
      {{2, num_slots, 1}},
      {{2, 2, 1}},
      {{2, 20, -1}},
      {{2, 20, 512}},
      {{2, 20, 1}, {3, 20, 1}},   // to one slot twice
      {{2, 20, 1}, {20, 21, 1}},  // on from where another goes
      {{20, 21, 1}, {2, 20, 1}},
      {{2, 3, 1}}};  // over a row's key
  for (size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(code(bad[i]), absl::StatusCode::kInternal) << "moves " << i;
  }
}

// The first rows that an independent implementation (Transformers) gives for the tiny models, by
// every rule of combination.
class GoldenFirstRowTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, GoldenFirstRowTest,
                         testing::Values("tiny_mha", "tiny_gqa", "tiny_mqa", "tiny_llama3_rope",
                                         "tiny_bias", "tiny_mistral", "tiny_hybrid",
                                         "tiny_chunked"));

using Json = nlohmann::json;

TestSequence FusedOf(const Json& prompt, const Json& fusion) {
  SegmentLayout::Pieces pieces;
  std::vector<int32_t> tokens = prompt["prefix"];
  pieces.prefix_length = static_cast<int32_t>(tokens.size());
  pieces.separator_length = static_cast<int32_t>(prompt["separator"].size());
  pieces.suffix_length = static_cast<int32_t>(prompt["suffix"].size());
  if (fusion["separators"] == "SEPARATOR_POLICY_ATTACHED") {
    pieces.separator_policy = SeparatorPolicy::kAttached;
  }
  if (fusion["positions"] == "POSITION_MODE_SEQUENTIAL") {
    pieces.position_mode = PositionMode::kSequential;
  }
  const auto append = [&tokens](const std::vector<int32_t>& more) {
    tokens.insert(tokens.end(), more.begin(), more.end());
  };
  for (size_t i = 0; i < prompt["segments"].size(); ++i) {
    if (i > 0) append(prompt["separator"]);
    append(prompt["segments"][i]);
    pieces.segment_lengths.push_back(static_cast<int32_t>(prompt["segments"][i].size()));
  }
  append(prompt["suffix"]);
  TestSequence sequence{*SegmentLayout::FromPieces(pieces), tokens, {}};
  for (size_t i = 0; i < tokens.size(); ++i) sequence.slots.push_back(static_cast<int32_t>(i));
  return sequence;
}

// The step whose one choice gives the case's first row; false for forms that this test leaves out.
bool PlanOf(const Json& item, const SamplingParams& sampling, StepPlan& plan) {
  const Json& fusion = item["fusion"];
  const Json& prompt = item["prompt"];
  const std::string method = fusion["method"];
  TokenChoice choice = GreedyChoice(0, sampling, true);
  if (fusion.contains("weights")) choice.weights = fusion["weights"].get<std::vector<float>>();
  float total = 0.0f;
  for (const float weight : choice.weights) total += weight;
  for (float& weight : choice.weights) weight /= total;
  if (method == "FUSION_METHOD_ATTENTION") {
    for (const char* scaling : {"attention_temperature", "attention_scale", "segment_log_bias"}) {
      if (fusion.contains(scaling)) return false;
    }
    const TestSequence sequence = FusedOf(prompt, fusion);
    AppendRows(sequence, 0, sequence.layout.length(), plan);
    const std::vector<int32_t>& last_rows = sequence.layout.last_own_tokens();
    if (!prompt["suffix"].empty()) {
      choice.rows = {sequence.layout.length() - 1};
    } else if (fusion["first_token"] == "FIRST_TOKEN_LAST_SEGMENT") {
      choice.rows = {last_rows.back()};
    } else {
      choice.rule = CombineRule::kLogitMean;
      choice.rows = last_rows;
    }
    if (choice.rule == CombineRule::kNone) choice.weights.clear();
  } else {
    static const std::map<std::string, CombineRule> kRules = {
        {"FUSION_METHOD_LOGIT_MEAN", CombineRule::kLogitMean},
        {"FUSION_METHOD_PROB_MEAN", CombineRule::kProbMean},
        {"FUSION_METHOD_PROB_MAX", CombineRule::kProbMax},
        {"FUSION_METHOD_LOGIT_MAX", CombineRule::kLogitMax}};
    if (kRules.count(method) == 0) return false;
    choice.rule = kRules.at(method);
    choice.rows.clear();
    for (const Json& segment : prompt["segments"]) {
      std::vector<int32_t> tokens = prompt["prefix"];
      for (const Json* piece : {&segment, &prompt["suffix"]}) {
        for (const Json& token : *piece) tokens.push_back(token);
      }
      const int32_t length = static_cast<int32_t>(tokens.size());
      choice.rows.push_back(
          AppendRows(CausalSequence(std::move(tokens), plan.num_rows()), 0, length, plan) + length -
          1);
    }
  }
  plan.choices = {choice};
  return true;
}

TEST_P(GoldenFirstRowTest, AgreesWithTransformers) {
  const std::string name = GetParam();
  const Json data = Json::parse(std::ifstream("tests/golden/data/" + name + ".json"));
  const auto weights = LoadSharedWeights({.model_directory = "tests/golden/models/" + name,
                                          .dtype = ModelDtype::kFloat32,
                                          .num_threads = 2});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto runner = MakeRunner(*weights);
  const SamplingParams sampling;
  int num_compared = 0;
  double largest = 0.0;
  for (const Json& item : data["cases"]) {
    StepPlan plan;
    if (!item["expected"].contains("first_row") || item["expected"]["first_row"].is_null() ||
        item["expected"]["first_row"].contains("ids") || !PlanOf(item, sampling, plan)) {
      continue;
    }
    const auto result = runner->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    const std::vector<double> expected = item["expected"]["first_row"]["values"];
    const std::vector<float>& logits = result->tokens[0].logits;
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(logits[i], expected[i], 1e-3) << item["name"] << " token " << i;
      largest = std::max(largest, std::abs(logits[i] - expected[i]));
    }
    ++num_compared;
  }
  RecordProperty("largest_difference", std::to_string(largest));
  std::printf("%d rows, largest difference %.2e\n", num_compared, largest);
  EXPECT_GE(num_compared, 5);
}

}  // namespace
}  // namespace chorus
