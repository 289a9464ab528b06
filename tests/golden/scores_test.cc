// Scores against Hugging Face Transformers (make_scores.py), by every method and form; and against
// Generate: its greedy answer, scored, has its logprobs bit for bit.

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/golden/engine_runs.h"
#include "tests/golden/golden_cases.h"

namespace chorus {
namespace {

using Json = nlohmann::json;
using ::testing::SizeIs;

// golden_test's tolerance of a logit. A log-softmax moves by twice as much at most: the logit's own
// share, and the log-sum-exp, which moves by no more than the largest change of a logit.
constexpr double kLogitTolerance = 1e-3;
constexpr double kLogprobTolerance = 2 * kLogitTolerance;

constexpr const char* kModels[] = {"tiny_gqa",  "tiny_mha",     "tiny_mqa",    "tiny_llama3_rope",
                                   "tiny_bias", "tiny_mistral", "tiny_hybrid", "tiny_chunked"};

std::string PathOf(const std::string& name) { return "tests/golden/data/" + name + ".json"; }

const Json& ScoresFile() {
  static const auto* const file = new Json(Json::parse(std::ifstream(PathOf("scores"))));
  return *file;
}

// A request with its scores.
struct Scored {
  std::string name;
  Request request;
  Json scores;
};

std::vector<Scored> ScoredOf(const std::string& model, std::string* directory) {
  const GoldenFile file = LoadGoldenFile(PathOf(model));
  *directory = file.model_directory;
  std::map<std::string, const GoldenCase*> cases;
  for (const GoldenCase& golden : file.cases) cases[golden.name] = &golden;
  std::vector<Scored> all;
  for (const Json& entry : ScoresFile()["requests"]) {
    if (entry["file"] != model) continue;
    Scored scored{entry["case"], cases.at(entry["case"])->request, entry["scores"]};
    if (entry["method"] == "FUSION_METHOD_VOTE") scored.request.fusion.method = FusionMethod::kVote;
    ScoreParams& score = scored.request.score.emplace();
    for (const Json& one : scored.scores) {
      score.continuations.push_back(one["token_ids"].get<std::vector<int32_t>>());
    }
    all.push_back(std::move(scored));
  }
  return all;
}

void ExpectLogprobsNear(const Json& want, const ContinuationScore& got) {
  const auto num_tokens = want["token_ids"].size();
  ASSERT_THAT(got.token_logprobs, SizeIs(num_tokens));
  for (size_t k = 0; k < num_tokens; ++k) {
    EXPECT_NEAR(got.token_logprobs[k], want["token_logprobs"][k].get<double>(), kLogprobTolerance);
  }
  EXPECT_NEAR(got.logprob, want["logprob"].get<double>(),
              static_cast<double>(num_tokens) * kLogprobTolerance);
}

void ExpectNear(const Json& want, const ContinuationScore& got) {
  ExpectLogprobsNear(want, got);
  const double tolerance = static_cast<double>(got.token_logprobs.size()) * kLogprobTolerance;
  ASSERT_THAT(got.prompt_logprobs, SizeIs(want["prompt_logprobs"].size()));
  for (size_t i = 0; i < got.prompt_logprobs.size(); ++i) {
    EXPECT_NEAR(got.prompt_logprobs[i], want["prompt_logprobs"][i].get<double>(), tolerance);
  }
  // Where two logits are nearer than the tolerance of both, either may be the largest.
  if (want["margin"].get<double>() > 2 * kLogitTolerance) {
    EXPECT_EQ(got.is_greedy, want["is_greedy"].get<bool>());
  }
}

class ScoresTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { requests_ = ScoredOf(GetParam(), &directory_); }

  std::vector<Request> Requests() const {
    std::vector<Request> requests;
    for (const Scored& one : requests_) requests.push_back(one.request);
    return requests;
  }

  std::string directory_;
  std::vector<Scored> requests_;
};

TEST_P(ScoresTest, EveryMethodScoresAsTransformers) {
  const LoadedModel model = LoadModel(directory_, ModelDtype::kFloat32);
  EngineRun engine(model);
  const EngineRun::Sinks sinks = engine.RunAlone(Requests());
  int num_greedy = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    SCOPED_TRACE(requests_[i].name);
    ASSERT_NE(sinks[i], nullptr);
    ASSERT_TRUE(sinks[i]->status.ok()) << sinks[i]->status;
    const auto& scores = sinks[i]->finish.scores;
    ASSERT_THAT(scores, SizeIs(requests_[i].scores.size()));
    for (size_t k = 0; k < scores.size(); ++k) {
      ExpectNear(requests_[i].scores[k], scores[k]);
      num_greedy += scores[k].is_greedy;
    }
  }
  EXPECT_GT(num_greedy, 0);
}

void ExpectSameScores(const EngineRun::Sinks& want, const EngineRun::Sinks& got) {
  ASSERT_EQ(want.size(), got.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(want[i] != nullptr && got[i] != nullptr);
    ASSERT_TRUE(want[i]->status.ok() && got[i]->status.ok()) << got[i]->status;
    const auto& a = want[i]->finish.scores;
    const auto& b = got[i]->finish.scores;
    ASSERT_EQ(a.size(), b.size());
    for (size_t k = 0; k < a.size(); ++k) {
      EXPECT_EQ(a[k].token_logprobs, b[k].token_logprobs);
      EXPECT_EQ(a[k].prompt_logprobs, b[k].prompt_logprobs);
      EXPECT_EQ(a[k].greedy_token_ids, b[k].greedy_token_ids);
    }
  }
}

// Company, chunks and lost KV space do not change a bit.
TEST_P(ScoresTest, RequestsAtOnceGetTheVeryScoresTheyGetAlone) {
  for (const ModelDtype dtype : {ModelDtype::kFloat32, ModelDtype::kBFloat16}) {
    const LoadedModel model = LoadModel(directory_, dtype);
    const EngineRun::Sinks alone = EngineRun(model).RunAlone(Requests());
    for (const int max_step_rows : {512, 23}) {
      EngineRunOptions options;
      options.engine.max_step_rows = max_step_rows;
      ExpectSameScores(alone, EngineRun(model, options).RunAtOnce(Requests()));
    }
  }
}

TEST_P(ScoresTest, AGreedyAnswerHasTheLogprobsOfGenerateBitForBit) {
  for (const ModelDtype dtype : {ModelDtype::kFloat32, ModelDtype::kBFloat16}) {
    const LoadedModel model = LoadModel(directory_, dtype);
    EngineRun engine(model);
    for (const Scored& one : requests_) {
      if (one.request.fusion.method >= FusionMethod::kPerPrompt) continue;
      SCOPED_TRACE(one.name);
      Request request = one.request;
      request.score.reset();
      request.stopping.max_new_tokens = 8;
      request.stopping.ignore_eos = true;
      const auto generated = engine.Submit(request);
      ASSERT_NE(generated, nullptr);
      generated->Wait();
      std::vector<float> logprobs;
      for (const TokenEvent& event : generated->tokens) {
        logprobs.insert(logprobs.end(), event.logprobs.begin(), event.logprobs.end());
      }
      request.score.emplace().continuations = {generated->finish.answer.token_ids};
      const auto scored = engine.Submit(request);
      ASSERT_NE(scored, nullptr);
      scored->Wait();
      ASSERT_THAT(scored->finish.scores, SizeIs(1)) << scored->status;
      EXPECT_EQ(scored->finish.scores[0].token_logprobs, logprobs);
      EXPECT_TRUE(scored->finish.scores[0].is_greedy);
    }
  }
}

// The default model and real questions, from the scores that the cases of its file have.
TEST(ScoresOfSmolLm2Test, AttentionAndLogitMethodsScoreAsTransformers) {
  const GoldenFile file = LoadGoldenFile(PathOf("smollm2_few_shot"));
  const Json cases = Json::parse(std::ifstream(PathOf("smollm2_few_shot")))["cases"];
  const LoadedModel model = LoadModel(file.model_directory, ModelDtype::kFloat32);
  EngineRun engine(model);
  int num_scored = 0;
  for (size_t i = 0; i < file.cases.size(); ++i) {
    const Json want = cases[i]["expected"].value("scores", Json::array());
    if (want.empty()) continue;
    SCOPED_TRACE(file.cases[i].name);
    Request request = file.cases[i].request;
    ScoreParams& score = request.score.emplace();
    score.prompt_logprobs = false;  // the file has none
    for (const Json& one : want) {
      score.continuations.push_back(one["token_ids"].get<std::vector<int32_t>>());
    }
    const auto sink = engine.Submit(request);
    ASSERT_NE(sink, nullptr);
    sink->Wait();
    ASSERT_THAT(sink->finish.scores, SizeIs(want.size())) << sink->status;
    for (size_t k = 0; k < want.size(); ++k) {
      ExpectLogprobsNear(want[k], sink->finish.scores[k]);
      EXPECT_EQ(sink->finish.scores[k].is_greedy, want[k]["is_greedy"].get<bool>());
      ++num_scored;
    }
  }
  EXPECT_GT(num_scored, 8);
}

INSTANTIATE_TEST_SUITE_P(Models, ScoresTest, ::testing::ValuesIn(kModels),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace chorus
