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

#include "tests/golden/engine_runs.h"
#include "tests/golden/golden_cases.h"

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
  }

  std::unique_ptr<EngineRun> MakeEngine(ModelDtype dtype, int max_step_rows) {
    if (models_.count(dtype) == 0) models_[dtype] = LoadModel(file_.model_directory, dtype);
    EngineRunOptions options;
    options.kv_cache_bytes = int64_t{1} << 30;
    options.engine.max_step_rows = max_step_rows;
    options.wrap = [this](std::unique_ptr<ModelRunner> runner) {
      return std::make_unique<RecordingRunner>(std::move(runner), &first_rows_);
    };
    return std::make_unique<EngineRun>(models_[dtype], options);
  }

  std::vector<Request> Requests() const {
    std::vector<Request> requests;
    for (const GoldenCase& golden : file_.cases) requests.push_back(golden.request);
    return requests;
  }

  GoldenFile file_;
  std::map<ModelDtype, LoadedModel> models_;
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
  const auto engine = MakeEngine(ModelDtype::kFloat32, /*max_step_rows=*/4096);
  int num_rows_compared = 0;
  for (const GoldenCase& golden : file_.cases) {
    SCOPED_TRACE(golden.name);
    first_rows_.clear();
    const auto sink = engine->Submit(golden.request);
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

void ExpectSameStreams(const EngineRun::Sinks& want, const EngineRun::Sinks& got,
                       const GoldenFile& file) {
  ASSERT_EQ(want.size(), got.size());
  for (size_t i = 0; i < want.size(); ++i) {
    SCOPED_TRACE(file.cases[i].name);
    ASSERT_TRUE(want[i] != nullptr && got[i] != nullptr);
    ExpectSameStream(*want[i], *got[i]);
  }
}

TEST_P(GoldenTest, RequestsAtOnceGetTheVeryTokensTheyGetAlone) {
  for (const ModelDtype dtype : {ModelDtype::kFloat32, ModelDtype::kBFloat16}) {
    SCOPED_TRACE(static_cast<int>(dtype));
    const auto alone = MakeEngine(dtype, /*max_step_rows=*/4096)->RunAlone(Requests());
    for (const int max_step_rows : {512, 37}) {
      ExpectSameStreams(alone, MakeEngine(dtype, max_step_rows)->RunAtOnce(Requests()), file_);
    }
  }
}

TEST_P(GoldenTest, AnyOrderOfParaphrasesGivesTheIdenticalStream) {
  const auto engine = MakeEngine(ModelDtype::kBFloat16, /*max_step_rows=*/512);
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
    const auto forward = engine->Submit(request);
    const auto backward = engine->Submit(reversed);
    ASSERT_TRUE(forward != nullptr && backward != nullptr);
    forward->Wait();
    backward->Wait();
    EXPECT_EQ(forward->finish.answer.token_ids, backward->finish.answer.token_ids);
    EXPECT_EQ(forward->finish.answer.mean_logprob, backward->finish.answer.mean_logprob);
    ++num_compared;
  }
  // The prototype's cases have separators, so order matters to every one of them.
  if (std::string(GetParam()) != "smollm2_prototype") {
    EXPECT_GT(num_compared, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenTest,
                         ::testing::Values("tiny_gqa", "tiny_mha", "tiny_mqa", "tiny_llama3_rope",
                                           "tiny_bias", "tiny_mistral", "tiny_hybrid",
                                           "tiny_chunked", "smollm2_few_shot", "smollm2_chatml",
                                           "smollm2_prototype"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace chorus
