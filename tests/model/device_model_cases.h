#pragma once

// A model on a device against the CPU's runner in float32 on the same weights: the cases, for
// whatever device a test has.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/engine/engine.h"
#include "core/kernels/bfloat16.h"
#include "core/model/llama_weights.h"
#include "core/model/model_config.h"
#include "core/model/torch_model_runner.h"
#include "core/text/tokenizer.h"
#include "tests/model/plan_builder.h"
#include "tests/model/safetensors_builder.h"
#include "tests/support/collecting_sink.h"

namespace chorus {

inline constexpr char kTokenizer[] = "tests/golden/models/tiny_gqa/tokenizer.json";

// Two layers of four heads of 64 over two key-value heads: the smallest that the fast kernels take.
inline constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_act": "silu", "vocab_size": 300, "num_hidden_layers": 2, "rms_norm_eps": 1e-05,
  "max_position_embeddings": 512, "eos_token_id": 2, "hidden_size": 128, "intermediate_size": 192,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rope_theta": 10000.0,
  "tie_word_embeddings": true})";

// A checkpoint of random weights in bfloat16, which both sides read exactly.
inline void WriteModel(const TestFolder& folder) {
  const ModelConfig config = *ParseModelConfig(kConfig, "config.json");
  const RandomWeights random(7);
  SafetensorsBuilder builder;
  for (const WeightName& weight : WeightNames(config).All()) {
    const WeightSource::Rows rows = random.Read(weight);
    std::vector<float> row(weight.num_columns);
    std::string bytes;
    for (int64_t i = 0; i < std::max<int64_t>(1, weight.num_rows); ++i) {
      rows(i, row.data());
      for (const float value : row) {
        const uint16_t bits = BFloat16FromFloat(value);
        bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
      }
    }
    std::vector<int64_t> shape = {weight.num_columns};
    if (weight.num_rows > 0) shape.insert(shape.begin(), weight.num_rows);
    builder.AddRaw(weight.name, "BF16", shape, bytes);
  }
  WriteFile(folder.File("config.json"), kConfig);
  WriteFile(folder.File("model.safetensors"), builder.Bytes());
}

inline std::string ModelDirectory() {
  static const TestFolder* const folder = [] {
    auto* made = new TestFolder("device_model");
    WriteModel(*made);
    return made;
  }();
  return folder->path();
}

inline std::unique_ptr<ModelRunner> CpuRunner(const std::string& directory) {
  auto weights = LoadSharedWeights({.model_directory = directory, .dtype = ModelDtype::kFloat32});
  EXPECT_TRUE(weights.ok()) << weights.status();
  auto runner = CreateTorchModelRunner(*weights, {.num_threads = 1, .kv_cache_bytes = 4 << 20});
  EXPECT_TRUE(runner.ok()) << runner.status();
  return *std::move(runner);
}

// What a test asks of a runner.
struct TestRunnerOptions {
  bool use_graphs = false;
  std::function<void(int done, int total)> progress = nullptr;
  std::function<void(const std::string& message)> warn = nullptr;
};

// A back end: `static std::string WhyAbsent()`, "" if it can be used, and `static
// absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const std::string& directory, const
// TestRunnerOptions&)`, on a device that lives as long as the process.
template <class Backend>
class DeviceModelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = Backend::WhyAbsent(); !why.empty()) GTEST_SKIP() << why;
  }

  static std::unique_ptr<ModelRunner> Create(const std::string& directory,
                                             const TestRunnerOptions& options = {}) {
    auto runner = Backend::Create(directory, options);
    CHECK(runner.ok());
    return *std::move(runner);
  }
};
TYPED_TEST_SUITE_P(DeviceModelTest);

inline StepResult RunOn(ModelRunner& runner, const StepPlan& plan) {
  auto result = runner.Run(plan);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : StepResult();
}

inline std::vector<int32_t> Tokens(int32_t count, int32_t start) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (start + 53 * i) % 300;
  return tokens;
}

// Prefix, three segments and suffix, and `generated` tokens.
inline TestSequence Fused(int32_t start, int32_t first_slot, int32_t generated) {
  TestSequence sequence{*SegmentLayout::FromPieces({.prefix_length = 3,
                                                    .segment_lengths = {5, 9, 4},
                                                    .separator_length = 1,
                                                    .suffix_length = 2}),
                        {},
                        {}};
  const int32_t length = sequence.layout.length() + generated;
  sequence.token_ids = Tokens(length, start);
  for (int32_t i = 0; i < length; ++i) sequence.slots.push_back(first_slot + i);
  return sequence;
}

inline const SamplingParams& Greedy() {
  static const SamplingParams sampling;
  return sampling;
}

// Rows [begin, end) of a sequence and the logits of all of them.
inline void AppendWithChoices(const TestSequence& sequence, int32_t begin, int32_t end,
                              StepPlan& plan) {
  const int32_t first = AppendRows(sequence, begin, end, plan);
  for (int32_t row = first; row < plan.num_rows(); ++row) {
    plan.choices.push_back(GreedyChoice(row, Greedy(), /*want_logits=*/true));
  }
}

inline int32_t LengthOf(const TestSequence& sequence) {
  return static_cast<int32_t>(sequence.token_ids.size());
}

// Activations are rounded some ten times a layer, by at most 2^-9 of themselves; the roundings add
// up as random ones do: sqrt(20) * 2^-9 = 0.009 of the logits' root mean square. Twice that is
// allowed.
inline constexpr double kTolerance = 0.018;

inline void ExpectNear(const StepResult& got, const StepResult& want) {
  ASSERT_EQ(got.tokens.size(), want.tokens.size());
  int num_equal = 0;
  double error_sum = 0.0, square_sum = 0.0;
  for (size_t i = 0; i < got.tokens.size(); ++i) {
    ASSERT_TRUE(got.tokens[i].status.ok()) << got.tokens[i].status;
    ASSERT_EQ(got.tokens[i].logits.size(), want.tokens[i].logits.size());
    for (size_t j = 0; j < got.tokens[i].logits.size(); ++j) {
      const float difference = std::abs(got.tokens[i].logits[j] - want.tokens[i].logits[j]);
      ASSERT_FALSE(std::isnan(difference)) << "choice " << i << " token " << j;
      error_sum += std::pow(difference, 2.0);
      square_sum += std::pow(want.tokens[i].logits[j], 2.0);
    }
    num_equal += got.tokens[i].token_id == want.tokens[i].token_id ? 1 : 0;
  }
  const double error = std::sqrt(error_sum / square_sum);
  std::printf("error %.4f, %d of %zu tokens equal\n", error, num_equal, got.tokens.size());
  EXPECT_LT(error, kTolerance);
  EXPECT_GE(num_equal * 10, static_cast<int>(got.tokens.size()) * 8);
}

inline void ExpectSameBits(const ChosenToken& a, const ChosenToken& b) {
  EXPECT_EQ(a.token_id, b.token_id);
  EXPECT_EQ(a.logprob, b.logprob);
  EXPECT_EQ(a.logits, b.logits);
}

TYPED_TEST_P(DeviceModelTest, LogitsAreThoseOfTheCpu) {
  StepPlan plan;
  const TestSequence fused = Fused(11, 0, 3), causal = CausalSequence(Tokens(20, 5), 50);
  AppendWithChoices(fused, 0, LengthOf(fused), plan);
  AppendWithChoices(causal, 0, 20, plan);
  const auto runner = TestFixture::Create(ModelDirectory());
  ExpectNear(RunOn(*runner, plan), *CpuRunner(ModelDirectory())->Run(plan));
}

// Prefill and decode mixed, and in another order of sequences, against each sequence alone.
TYPED_TEST_P(DeviceModelTest, ARowHasTheSameBitsInEveryBatch) {
  const auto runner = TestFixture::Create(ModelDirectory());
  const TestSequence a = Fused(11, 0, 2), b = Fused(29, 100, 2);
  const int32_t length = LengthOf(a);
  StepPlan alone, early, mixed;
  AppendWithChoices(a, 0, length, alone);
  const StepResult want = RunOn(*runner, alone);
  AppendRows(a, 0, length - 1, early);
  RunOn(*runner, early);
  AppendWithChoices(b, 0, length, mixed);
  AppendWithChoices(a, length - 1, length, mixed);
  const StepResult got = RunOn(*runner, mixed);
  ExpectSameBits(got.tokens.back(), want.tokens.back());
  // Chunks, as after the space was given away.
  for (int32_t begin = 0; begin < length; begin += 7) {
    StepPlan chunk;
    const int32_t end = std::min(begin + 7, length);
    AppendWithChoices(a, begin, end, chunk);
    const StepResult again = RunOn(*runner, chunk);
    for (int32_t i = begin; i < end; ++i) ExpectSameBits(again.tokens[i - begin], want.tokens[i]);
  }
}

TYPED_TEST_P(DeviceModelTest, GraphsChangeNoBit) {
  int num_graphs = 0;
  const auto with = TestFixture::Create(
      ModelDirectory(),
      {.use_graphs = true, .progress = [&](int, int total) { num_graphs = total; }});
  const auto without = TestFixture::Create(ModelDirectory());
  EXPECT_GT(num_graphs, 0);
  std::vector<TestSequence> sequences;
  for (int32_t i = 0; i < 5; ++i) sequences.push_back(Fused(11 + i, 60 * i, 4));
  const int32_t length = LengthOf(sequences[0]), prompt = length - 4;
  StepPlan prefill;
  for (const TestSequence& sequence : sequences) AppendRows(sequence, 0, prompt, prefill);
  RunOn(*with, prefill);
  RunOn(*without, prefill);
  for (int32_t i = 0; i < 4; ++i) {  // one to five rows: several buckets
    StepPlan decode;
    for (int32_t s = 0; s < (i == 3 ? 5 : i + 1); ++s) {
      AppendWithChoices(sequences[s], s < i || i == 0 ? prompt + i : prompt, prompt + i + 1,
                        decode);
    }
    const StepResult want = RunOn(*without, decode), got = RunOn(*with, decode);
    ASSERT_EQ(got.tokens.size(), want.tokens.size());
    for (size_t t = 0; t < got.tokens.size(); ++t) ExpectSameBits(got.tokens[t], want.tokens[t]);
  }
}

// Keys that are moved by positions, as SEQUENTIAL segments are.
TYPED_TEST_P(DeviceModelTest, MovesAreThoseOfTheCpu) {
  const TestSequence sequence = CausalSequence(Tokens(12, 7), 0);
  StepPlan plan;
  AppendWithChoices(sequence, 0, 12, plan);
  StepPlan moving;
  AppendRows(CausalSequence(Tokens(4, 7), 20), 0, 4, moving);
  for (int32_t i = 0; i < 4; ++i) moving.attention.moves.push_back({20 + i, 40 + i, 3});
  StepPlan reading;
  TestSequence moved = CausalSequence(Tokens(8, 7), 40);
  AppendWithChoices(moved, 4, 8, reading);
  const auto runner = TestFixture::Create(ModelDirectory());
  const auto cpu = CpuRunner(ModelDirectory());
  RunOn(*runner, moving);
  ASSERT_TRUE(cpu->Run(moving).ok());
  ExpectNear(RunOn(*runner, reading), *cpu->Run(reading));
}

TYPED_TEST_P(DeviceModelTest, ProbesSeeWhatTheCpuSees) {
  const TestSequence sequence = Fused(11, 0, 1);
  const int32_t length = LengthOf(sequence);
  KeyUnits units;
  units.num_units = 3;
  units.ranges = {{0, 3, 0}, {3, 8, 1}, {9, length, 2}};
  StepPlan plan;
  AppendWithChoices(sequence, 0, length, plan);
  plan.probes = {{length - 1, &units, {0, 1}, {1, 3}}, {6, &units, {1}, {0}}};
  const auto runner = TestFixture::Create(ModelDirectory());
  const StepResult got = RunOn(*runner, plan);
  const StepResult want = *CpuRunner(ModelDirectory())->Run(plan);
  ASSERT_EQ(got.probes.size(), want.probes.size());
  const auto expect_near = [](const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::isnan(b[i])) {
        EXPECT_TRUE(std::isnan(a[i]));
      } else {
        EXPECT_NEAR(a[i], b[i], 4 * kTolerance);  // sums over few keys
      }
    }
  };
  for (size_t i = 0; i < got.probes.size(); ++i) {
    expect_near(got.probes[i].mean_mass, want.probes[i].mean_mass);
    expect_near(got.probes[i].mass, want.probes[i].mass);
    expect_near(got.probes[i].logits, want.probes[i].logits);
  }
  plan.probes.clear();
  const StepResult without = RunOn(*runner, plan);
  for (size_t i = 0; i < got.tokens.size(); ++i) ExpectSameBits(got.tokens[i], without.tokens[i]);
}

// Heads of 32, biases, windows: all by the plain kernel, with one warning.
TYPED_TEST_P(DeviceModelTest, ThePlainKernelsLogitsAreThoseOfTheCpu) {
  for (const std::string name : {"tiny_bias", "tiny_mistral", "tiny_hybrid"}) {
    SCOPED_TRACE(name);
    const std::string directory = "tests/golden/models/" + name;
    std::vector<std::string> warnings;
    const auto runner = TestFixture::Create(
        directory, {.use_graphs = true,
                    .warn = [&](const std::string& message) { warnings.push_back(message); }});
    EXPECT_EQ(warnings.size(), 1u);
    StepPlan plan, decode;
    const TestSequence sequence = Fused(11, 0, 2);
    const int32_t length = LengthOf(sequence);
    AppendWithChoices(sequence, 0, length - 1, plan);
    AppendWithChoices(sequence, length - 1, length, decode);  // through a graph
    const auto cpu = CpuRunner(directory);
    ExpectNear(RunOn(*runner, plan), *cpu->Run(plan));
    ExpectNear(RunOn(*runner, decode), *cpu->Run(decode));
  }
}

// Requests of several methods, at once and alone, through the whole engine.
class EngineOnDevice {
 public:
  explicit EngineOnDevice(std::unique_ptr<ModelRunner> runner) {
    tokenizer_ = *Tokenizer::Load(kTokenizer);
    std::vector<std::unique_ptr<ModelRunner>> runners;
    runners.push_back(std::move(runner));
    engine_ = *Engine::Create({.max_step_rows = 24, .eos_token_ids = {2}}, std::move(runners),
                              tokenizer_.get(), &observer_, Clock::Real());
  }
  std::shared_ptr<CollectingSink> Submit(const Request& request) {
    auto sink = std::make_shared<CollectingSink>();
    EXPECT_TRUE(engine_->Submit(request, sink).ok());
    return sink;
  }

 private:
  EngineObserver observer_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
};

inline Request MakeRequest(FusionMethod method, int32_t start) {
  Request request;
  request.id = "request " + std::to_string(start);
  request.prefix = Tokens(4, start);
  request.prompts = {Tokens(7, start + 1), Tokens(5, start + 2), Tokens(9, start + 3)};
  request.suffix = Tokens(2, start + 4);
  request.fusion.method = method;
  request.stopping = {.max_new_tokens = 6, .ignore_eos = true};
  return request;
}

// Every method, greedy and drawn.
TYPED_TEST_P(DeviceModelTest, TheEngineGivesTheSameAnswersAloneAndTogether) {
  std::vector<Request> requests;
  for (const FusionMethod method :
       {FusionMethod::kAttention, FusionMethod::kLogitMean, FusionMethod::kProbMean,
        FusionMethod::kLogitMax, FusionMethod::kPerPrompt}) {
    requests.push_back(MakeRequest(method, static_cast<int32_t>(10 + 50 * requests.size())));
  }
  const size_t num_greedy = requests.size();
  requests.push_back(MakeRequest(FusionMethod::kProbMax, 31));
  requests.back().sampling = {
      .temperature = 0.9f, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1.1f, .seed = 5};
  EngineOnDevice alone(TestFixture::Create(ModelDirectory(), {.use_graphs = true})),
      together(TestFixture::Create(ModelDirectory())), cpu(CpuRunner(ModelDirectory()));
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const Request& request : requests) sinks.push_back(together.Submit(request));
  size_t num_equal = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    const auto one = alone.Submit(requests[i]), reference = cpu.Submit(requests[i]);
    one->Wait();
    reference->Wait();
    sinks[i]->Wait();
    ASSERT_TRUE(one->status.ok() && sinks[i]->status.ok() && reference->status.ok());
    const std::vector<int32_t>& ids = one->finish.answer.token_ids;
    ASSERT_EQ(ids.size(), 6u);
    EXPECT_EQ(ids, sinks[i]->finish.answer.token_ids);
    EXPECT_EQ(one->finish.answer.mean_logprob, sinks[i]->finish.answer.mean_logprob);
    num_equal += i < num_greedy && ids[0] == reference->finish.answer.token_ids[0];
  }
  EXPECT_GE(2 * num_equal, num_greedy);
}

REGISTER_TYPED_TEST_SUITE_P(DeviceModelTest, LogitsAreThoseOfTheCpu, ARowHasTheSameBitsInEveryBatch,
                            GraphsChangeNoBit, MovesAreThoseOfTheCpu, ProbesSeeWhatTheCpuSees,
                            ThePlainKernelsLogitsAreThoseOfTheCpu,
                            TheEngineGivesTheSameAnswersAloneAndTogether);

}  // namespace chorus
