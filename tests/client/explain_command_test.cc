// `chorus explain`, and `chorus ask` with what tokens say of their prompts, against a fake service.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "client/chorus_client.h"
#include "tests/client/fake_service.h"
#include "tests/client/run_command.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ExplainCommandTest : public ::testing::Test {
 protected:
  ExplainCommandTest() { service_.explanation = SmallExplanation(); }

  Outcome Run(std::vector<std::string> arguments) {
    arguments.push_back(absl::StrCat("--server=", service_.target()));
    return RunChorus(arguments);
  }

  FakeService service_;
};

TEST_F(ExplainCommandTest, AsksAsItsFlagsSay) {
  const Outcome outcome =
      Run({"explain", "Who?", "--paraphrase=Name him.", "--layers=0,9", "--heads=4", "--steps=1,2",
           "--preset=prototype", "--max_new_tokens=5"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(service_.explain_requests().size(), 1u);
  const v1::ExplainRequest request = service_.explain_requests()[0];
  EXPECT_THAT(request.layers(), ElementsAre(0, 9));
  EXPECT_THAT(request.heads(), ElementsAre(4));
  EXPECT_THAT(request.steps(), ElementsAre(1, 2));
  const v1::GenerateRequest& ask = request.request();
  EXPECT_EQ(ask.prompt().text().question(), "Who?");
  EXPECT_THAT(ask.prompt().text().paraphrases(), ElementsAre("Name him."));
  EXPECT_EQ(ask.prompt().text().separator(), "\n\n[SEP]\n\n");
  EXPECT_EQ(ask.fusion().method(), v1::FUSION_METHOD_ATTENTION);
  EXPECT_EQ(ask.stopping().max_new_tokens(), 5);
}

TEST_F(ExplainCommandTest, PrintsLayoutMaskLayersSinksAndMass) {
  const std::string out = Run({"explain", "Who?"}).out;
  EXPECT_THAT(out, ::testing::StartsWith("Paris\n\nLayout: 7 tokens; from token 5 on"));
  EXPECT_THAT(out, HasSubstr("  [1]          2  [1, 3)     [1, 3)  \"Name\"\n"));
  EXPECT_THAT(out, HasSubstr("  answer       1  [6, 7)     [4, 5)  \"Paris\"\n"));
  EXPECT_THAT(out, HasSubstr("Mask: 22 of 49 pairs allowed (44.9 %); no row sees nothing\n"));
  EXPECT_THAT(out, HasSubstr("token 0 of the answer, 2 heads; units: prefix [0] [1] suffix\n"));
  EXPECT_THAT(out, HasSubstr("0      7.000 ± 1.000  1.500 ± 0.000  3.000 ± 0.000           4.667"
                             "         4.000\n"));
  EXPECT_THAT(out, HasSubstr("middle of the logits above 1.2): 0\n"));
  EXPECT_THAT(out, HasSubstr("middle of the logits above 2.0):\n  layer 0: 0, 4\n"));
  EXPECT_THAT(out, HasSubstr("  [0]        2  25.00 %  12.500 %\n"));
}

TEST_F(ExplainCommandTest, JsonHoldsEverythingAndGoesToAFileToo) {
  const std::string path =
      (std::filesystem::path(::testing::TempDir()) / "explanation.json").string();
  const Outcome outcome = Run({"explain", "Who?", "--json", "--output", path});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["finish"]["text"], "Paris");
  EXPECT_EQ(json["prompt_info"]["request_id"], "r1");
  EXPECT_EQ(json["layout"]["tokens"][6], "Paris");
  EXPECT_EQ(json["layout"]["segments"][1], nlohmann::json({{"begin", 3}, {"end", 5}}));
  EXPECT_EQ(json["layout"]["prompt_indexes"], nlohmann::json({1, 0}));
  EXPECT_EQ(json["mask"]["allowed"], 22);
  EXPECT_EQ(json["mask_runs"][1]["keys"][1], nlohmann::json({{"begin", 1}, {"end", 3}}));
  EXPECT_EQ(json["units"][2],
            nlohmann::json({{"kind", "segment"}, {"prompt_index", 1}, {"num_keys", 2}}));
  EXPECT_EQ(json["seen_units"], nlohmann::json({0, 1, 2, 3}));
  EXPECT_EQ(json["steps"], nlohmann::json({0}));
  EXPECT_EQ(json["heads"], nlohmann::json({0, 4}));
  EXPECT_EQ(json["layers"][1]["layer"], 9);
  EXPECT_EQ(json["layers"][0]["logits"],
            nlohmann::json({6.0, 1.0, 2.0, 3.0, nullptr, 8.0, 1.0, 2.0, 3.0, nullptr}));
  EXPECT_EQ(json["layers"][0]["logits_statistics"]["middle"], 1.5);
  EXPECT_EQ(json["layers"][0]["sink_heads"], nlohmann::json({0, 4}));
  EXPECT_EQ(json["layers"][1]["has_sink"], false);
  EXPECT_EQ(json["mean_mass"][0], 0.25);
  std::ifstream file(path);
  const std::string saved((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(saved, outcome.out);
  std::filesystem::remove(path);
}

// 0.1f and not 0.10000000149011612.
TEST_F(ExplainCommandTest, JsonNumbersAreAsShortAsTheirFloats) {
  service_.explanation.mutable_layers(0)->set_mass(0, 0.1f);
  EXPECT_THAT(Run({"explain", "Who?", "--json"}).out, HasSubstr("\"mass\":[0.1,0.25,"));
}

TEST_F(ExplainCommandTest, AnswerWithoutTheStepsSaysSo) {
  service_.explanation.clear_steps();
  for (v1::LayerAttention& layer : *service_.explanation.mutable_layers()) {
    layer.clear_logits();
    layer.clear_mass();
  }
  const Outcome outcome = Run({"explain", "Who?", "--steps=9"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("The answer has none of the steps asked for.\n"));
  EXPECT_EQ(Run({"explain", "Who?", "--json"}).code, 0);
}

TEST_F(ExplainCommandTest, FailuresAreOneLine) {
  EXPECT_EQ(Run({"explain"}).code, 2);
  EXPECT_EQ(Run({"explain", "Who?", "--layers=x"}).code, 2);
  const Outcome method = Run({"explain", "Who?", "--method=vote"});
  EXPECT_EQ(method.code, 2);
  EXPECT_THAT(method.err, HasSubstr("unknown flag --method"));
  const Outcome unwritable = Run({"explain", "Who?", "--output=no/such/folder/x.json"});
  EXPECT_EQ(unwritable.code, 1);
  EXPECT_THAT(unwritable.err, HasSubstr("cannot write --output=no/such/folder/x.json"));
  service_.explanation.mutable_layers(0)->add_mass(1);
  EXPECT_EQ(Run({"explain", "Who?"}).code, 1);
  service_.status = BadField("bad", "layers[0]", "30 must be in [0, 30)");
  const Outcome refused = Run({"explain", "Who?", "--layers=30"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(refused.err, HasSubstr("layers[0]: 30 must be in [0, 30)"));
}

TEST_F(ExplainCommandTest, HelpTeachesWithoutFlagsThatMeanNothing) {
  const Outcome help = Run({"explain", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("--steps"));
  EXPECT_THAT(help.out, HasSubstr("--first_token"));
  EXPECT_THAT(help.out, Not(HasSubstr("--top_logprobs")));
  EXPECT_THAT(help.out, Not(HasSubstr("--priority")));
}

TEST_F(ExplainCommandTest, ClientsExplainCanBeCancelled) {
  service_.waits_for_cancel = true;
  auto client = ChorusClient::Connect(service_.target());
  ASSERT_TRUE(client.ok());
  Cancellation cancellation;
  std::thread canceller([&] {
    while (service_.explain_requests().empty()) absl::SleepFor(absl::Milliseconds(1));
    cancellation.Cancel();
  });
  EXPECT_EQ(client->Explain(v1::ExplainRequest(), &cancellation).status().code(),
            absl::StatusCode::kCancelled);
  canceller.join();
}

class AskStatisticsTest : public ExplainCommandTest {
 protected:
  AskStatisticsTest() {
    service_.events = PlainAnswer({"Par", "is"});
    for (v1::GenerateResponse& event : service_.events) {
      if (!event.has_chunk()) continue;
      event.mutable_chunk()->set_token_ids(0, 'A' + event.chunk().token_ids(0));
      v1::Attribution& attribution = *event.mutable_chunk()->add_attribution();
      attribution.set_prefix(0.5f);
      attribution.add_segments(0.125f);
      attribution.add_segments(0.25f);
      attribution.set_suffix(0.125f);
      event.mutable_chunk()->add_disagreement(0.5f);
    }
  }
};

TEST_F(AskStatisticsTest, TextOutputHasATableOfTokens) {
  const Outcome outcome = Run({"ask", "Why?", "--attribution", "--disagreement"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "Paris\n\n"
            "  token  prefix    [0]    [1]  suffix  answer  disagreement, bits\n"
            "  \"B\"     50.0%  12.5%  25.0%   12.5%    0.0%              0.5000\n"
            "  \"C\"     50.0%  12.5%  25.0%   12.5%    0.0%              0.5000\n");
  EXPECT_TRUE(service_.requests()[0].response().attribution());
  EXPECT_TRUE(service_.requests()[0].response().prompt_disagreement());
}

TEST_F(AskStatisticsTest, JsonHasThemAtEachToken) {
  const Outcome outcome = Run({"ask", "Why?", "--attribution", "--disagreement", "--json"});
  const nlohmann::json token = nlohmann::json::parse(outcome.out)["tokens"][1];
  EXPECT_EQ(token["attribution"], nlohmann::json({{"prefix", 0.5},
                                                  {"segments", {0.125, 0.25}},
                                                  {"separators", 0.0},
                                                  {"suffix", 0.125},
                                                  {"generated", 0.0}}));
  EXPECT_EQ(token["disagreement"], 0.5);
  EXPECT_EQ(token["text"], "C");
  service_.events = PlainAnswer({"Par", "is"});
  const nlohmann::json plain =
      nlohmann::json::parse(Run({"ask", "Why?", "--json"}).out)["tokens"][1];
  for (const char* key : {"attribution", "disagreement", "text"}) {
    EXPECT_TRUE(plain.contains(key));
    EXPECT_TRUE(plain[key].is_null());
  }
  EXPECT_EQ(Run({"ask", "Why?"}).out, "Paris\n");
}

}  // namespace
}  // namespace chorus
