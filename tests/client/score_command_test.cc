// `chorus score` against a fake service.

#include <limits>
#include <thread>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "client/chorus_client.h"
#include "core/base/check.h"
#include "tests/client/fake_service.h"
#include "tests/client/run_command.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ScoreCommandTest : public ::testing::Test {
 protected:
  ScoreCommandTest() {
    constexpr char kText[] = R"(
      scores {
        logprob: -0.75 is_greedy: true token_logprobs: [-0.5, -0.25] prompt_logprobs: [-1, -0.5]
        token_ids: [65, 66] greedy_token_ids: [65, 66]
      }
      scores {
        logprob: -9.5 token_logprobs: -9.5 prompt_logprobs: [-10, -9] token_ids: 67
        greedy_token_ids: 65
      }
      prompt_info { request_id: "r1" segment_tokens: [2, 2] prompt_tokens: 6 }
      usage { prompt_tokens: 6 scored_tokens: 3 model_steps: 1 }
      timing { total_seconds: 1.5 first_token_seconds: 0.25 }
    )";
    CHECK(google::protobuf::TextFormat::ParseFromString(kText, &service_.scores));
  }

  Outcome Run(std::vector<std::string> arguments) {
    arguments.push_back(absl::StrCat("--server=", service_.target()));
    return RunChorus(arguments);
  }
  Outcome RunScore(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"score", "Who?", "--paraphrase=Name him.", "--continuation= AB",
                                 "--continuation_tokens=67"});
    return Run(flags);
  }

  FakeService service_;
};

TEST_F(ScoreCommandTest, AsksAsItsFlagsSay) {
  const Outcome outcome = RunScore({"--continuation=a\\b", "--method=logit_mean", "--weights=1,2",
                                    "--preset=prototype", "--priority=7", "--request_id=me",
                                    "--no_prompt_logprobs"});
  // The service scores two continuations and not three.
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("not one score for each continuation"));
  ASSERT_EQ(service_.score_requests().size(), 1u);
  const v1::ScoreRequest request = service_.score_requests()[0];
  EXPECT_EQ(request.prompt().text().question(), "Who?");
  EXPECT_THAT(request.prompt().text().paraphrases(), ElementsAre("Name him."));
  EXPECT_EQ(request.prompt().text().separator(), "\n\n[SEP]\n\n");
  EXPECT_EQ(request.fusion().method(), v1::FUSION_METHOD_LOGIT_MEAN);
  EXPECT_THAT(request.fusion().weights(), ElementsAre(1, 2));
  ASSERT_EQ(request.continuations_size(), 3);
  EXPECT_EQ(request.continuations(0).text(), " AB");
  EXPECT_THAT(request.continuations(1).tokens().token_ids(), ElementsAre(67));
  EXPECT_EQ(request.continuations(2).text(), "a\\b");
  EXPECT_EQ(request.priority(), 7);
  EXPECT_EQ(request.request_id(), "me");
  EXPECT_TRUE(request.has_prompt_logprobs());
  EXPECT_FALSE(request.prompt_logprobs());
}

TEST_F(ScoreCommandTest, PrintsALineForEachContinuation) {
  const Outcome outcome = RunScore({});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "continuation  tokens  log-likelihood  per token  greedy       [0]      [1]\n"
            "\" AB\"              2         -0.7500    -0.3750     yes   -1.0000  -0.5000\n"
            "\"C\"                1         -9.5000    -9.5000      no  -10.0000  -9.0000\n");
  EXPECT_FALSE(service_.score_requests()[0].has_prompt_logprobs());
}

TEST_F(ScoreCommandTest, PerTokenAddsALineForEachToken) {
  EXPECT_THAT(RunScore({"--per_token"}).out, HasSubstr("\n\" AB\"\n"
                                                       "  token  id  logprob  likeliest\n"
                                                       "  \"A\"    65  -0.5000        \"A\"\n"
                                                       "  \"B\"    66  -0.2500        \"B\"\n"
                                                       "\n\"C\"\n"));
}

TEST_F(ScoreCommandTest, SeveralMethodsAreTakenInTurn) {
  const Outcome outcome = RunScore({"--method=vote,attention"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ::testing::StartsWith("vote\ncontinuation"));
  EXPECT_THAT(outcome.out, HasSubstr("\n\nattention\ncontinuation"));
  EXPECT_EQ(service_.score_requests().size(), 2u);
}

TEST_F(ScoreCommandTest, JsonHoldsEverything) {
  const Outcome outcome = RunScore({"--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["method"], "attention");
  EXPECT_EQ(json["scores"][0],
            nlohmann::json({{"text", " AB"},
                            {"token_ids", {65, 66}},
                            {"logprob", -0.75},
                            {"mean_logprob", -0.375},
                            {"is_greedy", true},
                            {"token_logprobs", {-0.5, -0.25}},
                            {"prompt_logprobs", {-1.0, -0.5}},
                            {"greedy_token_ids", {65, 66}},
                            {"token_texts", nullptr}}));
  EXPECT_EQ(json["scores"][1]["text"], "C");
  EXPECT_EQ(json["usage"], nlohmann::json({{"prompt_tokens", 6},
                                           {"cached_tokens", 0},
                                           {"scored_tokens", 3},
                                           {"model_steps", 1}}));
  EXPECT_EQ(json["timing"]["total_seconds"], 1.5);
  EXPECT_EQ(json["prompt_info"]["request_id"], "r1");
  EXPECT_EQ(nlohmann::json::parse(RunScore({"--json", "--per_token"}).out)["scores"][0]
                                                                          ["token_texts"],
            nlohmann::json({"A", "B"}));
}

// A token that a model can never say.
TEST_F(ScoreCommandTest, JsonSaysNullForWhatIsInfinite) {
  service_.scores.mutable_scores(1)->set_logprob(-std::numeric_limits<double>::infinity());
  EXPECT_TRUE(nlohmann::json::parse(RunScore({"--json"}).out)["scores"][1]["logprob"].is_null());
}

TEST_F(ScoreCommandTest, FailuresAreOneLine) {
  const Outcome nothing = Run({"score", "Who?"});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("no --continuation to score"));
  EXPECT_EQ(Run({"score"}).code, 2);
  EXPECT_EQ(Run({"score", "Who?", "--continuation="}).code, 2);
  EXPECT_EQ(Run({"score", "Who?", "--continuation_tokens=x"}).code, 2);
  const Outcome sampling = RunScore({"--temperature=1"});
  EXPECT_EQ(sampling.code, 2);
  EXPECT_THAT(sampling.err, HasSubstr("unknown flag --temperature"));
  service_.status = BadField("bad", "continuations[1]", "0 tokens must hold one");
  const Outcome refused = RunScore({});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("continuations[1]: 0 tokens must hold one"));
}

TEST_F(ScoreCommandTest, HelpTeachesWithoutFlagsThatMeanNothing) {
  const Outcome help = Run({"score", "--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* flag : {"--continuation", "--first_token", "--method", "--priority"}) {
    EXPECT_THAT(help.out, HasSubstr(flag));
  }
  EXPECT_THAT(help.out, Not(HasSubstr("--top_p")));
  EXPECT_THAT(help.out, Not(HasSubstr("--stop")));
}

TEST_F(ScoreCommandTest, ClientsScoreCanBeCancelled) {
  service_.waits_for_cancel = true;
  auto client = ChorusClient::Connect(service_.target());
  ASSERT_TRUE(client.ok());
  Cancellation cancellation;
  std::thread canceller([&] {
    while (service_.score_requests().empty()) absl::SleepFor(absl::Milliseconds(1));
    cancellation.Cancel();
  });
  EXPECT_EQ(client->Score(v1::ScoreRequest(), &cancellation).status().code(),
            absl::StatusCode::kCancelled);
  canceller.join();
}

}  // namespace
}  // namespace chorus
