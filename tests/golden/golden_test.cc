// Golden truth: what Hugging Face Transformers computes under explicit 4-D masks (README.md here),
// against the whole engine with the real model: token ids of every method, and the first step's
// logits. The same requests, all at once or read in small chunks, must give the very same tokens.
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/engine/engine.h"
#include "core/model/torch_model_runner.h"
#include "tests/golden/golden_cases.h"
#include "tests/support/collecting_sink.h"

namespace chorus {
namespace {

using ::testing::ElementsAreArray;

// Between implementations, over sums of a few thousand float32 terms (0.0006 % of logits near 20).
constexpr float kLogitTolerance = 1e-3f;

// Forwards to the real runner and keeps the combined row of every request's first choice, by the
// prompt tokens that the choice belongs to.
class RecordingRunner final : public ModelRunner {
 public:
  using Rows = std::map<std::vector<int32_t>, std::vector<float>>;
  RecordingRunner(std::unique_ptr<ModelRunner> runner, Rows* first_rows)
      : runner_(std::move(runner)), first_rows_(first_rows) {}

  const ModelInfo& info() const override { return runner_->info(); }

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    StepPlan recorded = plan;
    for (TokenChoice& choice : recorded.choices) choice.want_logits = true;
    absl::StatusOr<StepResult> result = runner_->Run(recorded);
    if (!result.ok()) return result;
    for (size_t i = 0; i < recorded.choices.size(); ++i) {
      const TokenChoice& choice = recorded.choices[i];
      if (choice.generated_tokens->empty()) {
        (*first_rows_)[*choice.prompt_tokens] = result->tokens[i].logits;
      }
    }
    return result;
  }

 private:
  std::unique_ptr<ModelRunner> runner_;
  Rows* first_rows_;
};

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    file_ = LoadGoldenFile(std::string("tests/golden/data/") + GetParam() + ".json");
    auto tokenizer = Tokenizer::Load(file_.model_directory + "/tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::unique_ptr<Engine> MakeEngine(ModelDtype dtype, int max_step_rows) {
    ModelOptions options;
    options.model_directory = file_.model_directory;
    options.dtype = dtype;
    options.num_threads = 2;
    auto weights = LoadSharedWeights(options);
    EXPECT_TRUE(weights.ok()) << weights.status();
    auto runner = CreateTorchModelRunner(
        *std::move(weights), {.num_threads = 2, .kv_cache_bytes = int64_t{1} << 30});
    EXPECT_TRUE(runner.ok()) << runner.status();
    std::vector<std::unique_ptr<ModelRunner>> runners;
    runners.push_back(std::make_unique<RecordingRunner>(*std::move(runner), &first_rows_));
    EngineOptions engine_options;
    engine_options.max_step_rows = max_step_rows;
    engine_options.eos_token_ids = {2};  // of the tiny models and of SmolLM2
    auto engine = Engine::Create(engine_options, std::move(runners), tokenizer_.get(), &observer_,
                                 Clock::Real());
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  static std::shared_ptr<CollectingSink> Submit(Engine& engine, const Request& request) {
    auto sink = std::make_shared<CollectingSink>();
    const auto handle = engine.Submit(request, sink);
    EXPECT_TRUE(handle.ok()) << request.id << ": " << handle.status();
    return handle.ok() ? sink : nullptr;
  }

  std::vector<std::shared_ptr<CollectingSink>> RunAllAtOnce(ModelDtype dtype,
                                                            int max_step_rows) {
    const std::unique_ptr<Engine> engine = MakeEngine(dtype, max_step_rows);
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const GoldenCase& golden : file_.cases) sinks.push_back(Submit(*engine, golden.request));
    for (auto& sink : sinks) {
      if (sink != nullptr) sink->Wait();
    }
    return sinks;
  }

  std::vector<std::shared_ptr<CollectingSink>> RunOneByOne(ModelDtype dtype) {
    const std::unique_ptr<Engine> engine = MakeEngine(dtype, /*max_step_rows=*/4096);
    std::vector<std::shared_ptr<CollectingSink>> sinks;
    for (const GoldenCase& golden : file_.cases) {
      sinks.push_back(Submit(*engine, golden.request));
      if (sinks.back() != nullptr) sinks.back()->Wait();
    }
    return sinks;
  }

  GoldenFile file_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  EngineObserver observer_;
  RecordingRunner::Rows first_rows_;  // must outlive the engine
};

void ExpectRowNear(const GoldenRow& golden, const std::vector<float>& row) {
  for (size_t i = 0; i < golden.values.size(); ++i) {
    const size_t id = golden.ids.empty() ? i : static_cast<size_t>(golden.ids[i]);
    ASSERT_LT(id, row.size());
    EXPECT_NEAR(golden.values[i], row[id], kLogitTolerance) << "logit of token " << id;
  }
}

bool IsPerPrompt(const Request& request) {
  return request.fusion.method == FusionMethod::kPerPrompt ||
         request.fusion.method == FusionMethod::kVote;
}

// The tokens of one prompt alone: prefix, segment, suffix.
std::vector<int32_t> PromptTokens(const Request& request, size_t prompt) {
  std::vector<int32_t> tokens = request.prefix;
  tokens.insert(tokens.end(), request.prompts[prompt].begin(), request.prompts[prompt].end());
  tokens.insert(tokens.end(), request.suffix.begin(), request.suffix.end());
  return tokens;
}

TEST_P(GoldenTest, EveryMethodGivesTheTokensOfTransformers) {
  const std::unique_ptr<Engine> engine = MakeEngine(ModelDtype::kFloat32, /*max_step_rows=*/4096);
  int num_rows_compared = 0;
  for (const GoldenCase& golden : file_.cases) {
    SCOPED_TRACE(golden.name);
    first_rows_.clear();
    const auto sink = Submit(*engine, golden.request);
    ASSERT_NE(sink, nullptr);
    sink->Wait();
    ASSERT_TRUE(sink->status.ok()) << sink->status;
    if (golden.request.fusion.method != FusionMethod::kPerPrompt) {
      const auto& want = golden.fused_token_ids;
      EXPECT_THAT(sink->finish.answer.token_ids, ElementsAreArray(want));
    }
    for (size_t i = 0; i < golden.answers.size(); ++i) {
      const GoldenAnswer& answer = golden.answers[i];
      const bool per_prompt = IsPerPrompt(golden.request);
      if (per_prompt) {
        EXPECT_THAT(sink->finish.prompts[i].token_ids, ElementsAreArray(answer.token_ids));
      }
      if (answer.first_row.values.empty()) continue;
      ++num_rows_compared;
      const auto& row = per_prompt ? first_rows_[PromptTokens(golden.request, i)]
                                   : first_rows_.begin()->second;
      ExpectRowNear(answer.first_row, row);
    }
  }
  EXPECT_GT(num_rows_compared, 0);
}

void ExpectSameStreams(const std::vector<std::shared_ptr<CollectingSink>>& want,
                       const std::vector<std::shared_ptr<CollectingSink>>& got,
                       const GoldenFile& file) {
  ASSERT_EQ(want.size(), got.size());
  for (size_t i = 0; i < want.size(); ++i) {
    SCOPED_TRACE(file.cases[i].name);
    ASSERT_NE(got[i], nullptr);
    ASSERT_TRUE(got[i]->status.ok()) << got[i]->status;
    EXPECT_EQ(want[i]->finish.answer.token_ids, got[i]->finish.answer.token_ids);
    // Bit for bit: log-probabilities are equal, not close.
    EXPECT_EQ(want[i]->finish.answer.mean_logprob, got[i]->finish.answer.mean_logprob);
    ASSERT_EQ(want[i]->finish.prompts.size(), got[i]->finish.prompts.size());
    for (size_t p = 0; p < want[i]->finish.prompts.size(); ++p) {
      EXPECT_EQ(want[i]->finish.prompts[p].token_ids, got[i]->finish.prompts[p].token_ids);
      EXPECT_EQ(want[i]->finish.prompts[p].mean_logprob, got[i]->finish.prompts[p].mean_logprob);
    }
  }
}

TEST_P(GoldenTest, RequestsAtOnceGetTheVeryTokensTheyGetAlone) {
  for (const ModelDtype dtype : {ModelDtype::kFloat32, ModelDtype::kBFloat16}) {
    SCOPED_TRACE(static_cast<int>(dtype));
    const auto alone = RunOneByOne(dtype);
    ExpectSameStreams(alone, RunAllAtOnce(dtype, /*max_step_rows=*/512), file_);
    ExpectSameStreams(alone, RunAllAtOnce(dtype, /*max_step_rows=*/37), file_);
  }
}

TEST_P(GoldenTest, AnyOrderOfParaphrasesGivesTheIdenticalStream) {
  const std::unique_ptr<Engine> engine = MakeEngine(ModelDtype::kBFloat16, /*max_step_rows=*/512);
  int num_compared = 0;
  for (const GoldenCase& golden : file_.cases) {
    const Request& request = golden.request;
    const bool attention = request.fusion.method == FusionMethod::kAttention;
    if (IsPerPrompt(request) || !request.fusion.weights.empty()) continue;
    if (attention && (request.fusion.positions != PositionMode::kOverlapping ||
                      !request.separator.empty() ||
                      request.fusion.first_token == FirstToken::kLastSegment)) {
      continue;
    }
    SCOPED_TRACE(golden.name);
    Request reversed = request;
    std::reverse(reversed.prompts.begin(), reversed.prompts.end());
    const auto forward = Submit(*engine, request);
    const auto backward = Submit(*engine, reversed);
    ASSERT_TRUE(forward != nullptr && backward != nullptr);
    forward->Wait();
    backward->Wait();
    EXPECT_EQ(forward->finish.answer.token_ids, backward->finish.answer.token_ids);
    EXPECT_EQ(forward->finish.answer.mean_logprob, backward->finish.answer.mean_logprob);
    ++num_compared;
  }
  // The prototype's cases have separators, so order matters to every one of them.
  if (std::string(GetParam()) != "smollm2_prototype") EXPECT_GT(num_compared, 0);
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest,
                         ::testing::Values("tiny_gqa", "tiny_mha", "tiny_mqa", "tiny_llama3_rope",
                                           "tiny_bias", "smollm2_few_shot", "smollm2_chatml",
                                           "smollm2_prototype"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace chorus
