#include "client/ask_options.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AskOptions Parsed(const std::vector<std::string>& arguments) {
  AskOptions options;
  const auto result = MakeAskParser(options).Parse(arguments);
  EXPECT_TRUE(result.ok()) << result.status();
  if (result.ok() && !result->words.empty()) options.question = result->words.front();
  ApplyPreset(options);
  return options;
}

v1::GenerateRequest RequestOf(const std::vector<std::string>& arguments) {
  const AskOptions options = Parsed(arguments);
  return MakeGenerateRequest(options, options.methods.front());
}

TEST(AskOptionsTest, WhatIsNotGivenIsNotSet) {
  v1::GenerateRequest expected;
  expected.mutable_prompt()->mutable_text()->set_question("Why?");
  expected.mutable_fusion()->set_method(v1::FUSION_METHOD_ATTENTION);
  expected.mutable_sampling();
  expected.mutable_stopping();
  const v1::GenerateRequest request = RequestOf({"Why?"});
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(request, expected))
      << request.DebugString();
}

TEST(AskOptionsTest, AttributionAndDisagreementGoToTheMethodsThatHaveThem) {
  const auto response_of = [](const std::vector<std::string>& arguments, v1::FusionMethod method) {
    return MakeGenerateRequest(Parsed(arguments), method).response();
  };
  const std::vector<std::string> all = {"Why?", "--method=all", "--attribution", "--disagreement"};
  for (int method = 1; method <= 7; ++method) {
    const v1::ResponseOptions response = response_of(all, static_cast<v1::FusionMethod>(method));
    EXPECT_EQ(response.attribution(), method == v1::FUSION_METHOD_ATTENTION);
    EXPECT_EQ(response.prompt_disagreement(), method < v1::FUSION_METHOD_PER_PROMPT);
  }
  // Of one method the server is asked, and refuses.
  const v1::ResponseOptions vote = response_of(
      {"Why?", "--method=vote", "--attribution", "--disagreement"}, v1::FUSION_METHOD_VOTE);
  EXPECT_TRUE(vote.attribution() && vote.prompt_disagreement());
}

TEST(AskOptionsTest, EveryPromptAndFusionFlagReachesItsField) {
  const v1::GenerateRequest request = RequestOf(
      {"Why?", "--paraphrase=How come?", "--paraphrase=For what reason?\\n", "--prefix=p\\n",
       "--suffix=", "--separator=;", "--system=Be brief.", "--template=llama3",
       "--method=prob_mean", "--positions=sequential", "--separators=attached",
       "--first_token=last_segment", "--weights=1,2,3", "--attention_temperature=0.9",
       "--attention_scale=0.8", "--segment_log_bias=-1.1"});
  const v1::TextPrompt& prompt = request.prompt().text();
  EXPECT_EQ(prompt.question(), "Why?");
  EXPECT_THAT(prompt.paraphrases(), ElementsAre("How come?", "For what reason?\\n"));
  EXPECT_EQ(prompt.prefix(), "p\n");
  EXPECT_TRUE(prompt.has_suffix());
  EXPECT_EQ(prompt.suffix(), "");
  EXPECT_EQ(prompt.separator(), ";");
  EXPECT_EQ(prompt.system(), "Be brief.");
  EXPECT_EQ(prompt.template_(), v1::TEMPLATE_LLAMA3);
  const v1::Fusion& fusion = request.fusion();
  EXPECT_EQ(fusion.method(), v1::FUSION_METHOD_PROB_MEAN);
  EXPECT_EQ(fusion.positions(), v1::POSITION_MODE_SEQUENTIAL);
  EXPECT_EQ(fusion.separators(), v1::SEPARATOR_POLICY_ATTACHED);
  EXPECT_EQ(fusion.first_token(), v1::FIRST_TOKEN_LAST_SEGMENT);
  EXPECT_THAT(fusion.weights(), ElementsAre(1, 2, 3));
  EXPECT_EQ(fusion.attention_temperature(), 0.9f);
  EXPECT_EQ(fusion.attention_scale(), 0.8f);
  EXPECT_EQ(fusion.segment_log_bias(), -1.1f);
}

TEST(AskOptionsTest, EverySamplingAndStoppingFlagReachesItsField) {
  const v1::GenerateRequest request = RequestOf({"Why?",
                                                 "--temperature=0.7",
                                                 "--top_p=0.9",
                                                 "--top_k=40",
                                                 "--min_p=0.05",
                                                 "--repetition_penalty=1.1",
                                                 "--presence_penalty=0.5",
                                                 "--frequency_penalty=-0.5",
                                                 "--seed=7",
                                                 "--logit_bias=3:-1.5",
                                                 "--allowed_token_ids=1,2,3",
                                                 "--max_new_tokens=9",
                                                 "--min_new_tokens=2",
                                                 "--stop=\\n",
                                                 "--stop=END",
                                                 "--stop_token_ids=5,6",
                                                 "--ignore_eos",
                                                 "--include_stop",
                                                 "--top_logprobs=4",
                                                 "--request_id=mine",
                                                 "--priority=-3"});
  const v1::Sampling& sampling = request.sampling();
  EXPECT_EQ(sampling.temperature(), 0.7f);
  EXPECT_EQ(sampling.top_p(), 0.9f);
  EXPECT_EQ(sampling.top_k(), 40);
  EXPECT_EQ(sampling.min_p(), 0.05f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.1f);
  EXPECT_EQ(sampling.presence_penalty(), 0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), -0.5f);
  EXPECT_EQ(sampling.seed(), 7u);
  EXPECT_EQ(sampling.logit_bias().at(3), -1.5f);
  EXPECT_THAT(sampling.allowed_token_ids(), ElementsAre(1, 2, 3));
  const v1::Stopping& stopping = request.stopping();
  EXPECT_EQ(stopping.max_new_tokens(), 9);
  EXPECT_EQ(stopping.min_new_tokens(), 2);
  EXPECT_THAT(stopping.stop(), ElementsAre("\n", "END"));
  EXPECT_THAT(stopping.stop_token_ids(), ElementsAre(5, 6));
  EXPECT_TRUE(stopping.ignore_eos());
  EXPECT_TRUE(stopping.include_stop());
  EXPECT_EQ(request.response().top_logprobs(), 4);
  EXPECT_EQ(request.request_id(), "mine");
  EXPECT_EQ(request.priority(), -3);
}

TEST(AskOptionsTest, ThePrototypePresetIsItsFiveSettings) {
  const v1::GenerateRequest request = RequestOf({"Why?", "--preset=prototype"});
  const v1::TextPrompt& prompt = request.prompt().text();
  EXPECT_TRUE(prompt.has_prefix());
  EXPECT_EQ(prompt.prefix(), "");
  EXPECT_TRUE(prompt.has_suffix());
  EXPECT_EQ(prompt.suffix(), "");
  EXPECT_EQ(prompt.separator(), "\n\n[SEP]\n\n");
  EXPECT_EQ(request.fusion().separators(), v1::SEPARATOR_POLICY_ISOLATED);
  EXPECT_EQ(request.fusion().positions(), v1::POSITION_MODE_SEQUENTIAL);
  EXPECT_EQ(request.fusion().first_token(), v1::FIRST_TOKEN_LAST_SEGMENT);
}

TEST(AskOptionsTest, FlagsBesideThePresetWinOnEitherSideOfIt) {
  const v1::GenerateRequest request =
      RequestOf({"Why?", "--suffix=A:", "--preset=prototype", "--positions=overlapping",
                 "--separator=", "--first_token=fuse_first", "--separators=attached"});
  EXPECT_EQ(request.prompt().text().suffix(), "A:");
  EXPECT_EQ(request.prompt().text().prefix(), "");
  EXPECT_EQ(request.prompt().text().separator(), "");
  EXPECT_EQ(request.fusion().positions(), v1::POSITION_MODE_OVERLAPPING);
  EXPECT_EQ(request.fusion().separators(), v1::SEPARATOR_POLICY_ATTACHED);
  EXPECT_EQ(request.fusion().first_token(), v1::FIRST_TOKEN_FUSE_FIRST);
}

TEST(AskOptionsTest, ATemplateNamedBesideThePresetKeepsItsPrefixAndSuffix) {
  const v1::TextPrompt prompt =
      RequestOf({"Why?", "--preset=prototype", "--template=chatml"}).prompt().text();
  EXPECT_FALSE(prompt.has_prefix());
  EXPECT_FALSE(prompt.has_suffix());
  EXPECT_EQ(prompt.separator(), "\n\n[SEP]\n\n");
}

TEST(AskOptionsTest, AllIsEveryMethodOfTheContractOnce) {
  const AskOptions options = Parsed({"Why?", "--method=all"});
  EXPECT_THAT(options.methods, SizeIs(v1::FusionMethod_descriptor()->value_count() - 1));
  EXPECT_EQ(options.methods.front(), v1::FUSION_METHOD_ATTENTION);
  EXPECT_EQ(options.methods.back(), v1::FUSION_METHOD_VOTE);
}

TEST(AskOptionsTest, MethodsComeInOneListOrInFlagsOfTheirOwn) {
  EXPECT_THAT(
      Parsed({"Why?", "--method=vote,attention", "--method=prob_max"}).methods,
      ElementsAre(v1::FUSION_METHOD_VOTE, v1::FUSION_METHOD_ATTENTION, v1::FUSION_METHOD_PROB_MAX));
}

TEST(AskOptionsTest, AmongSeveralMethodsWeightsGoToTheMeansAlone) {
  const AskOptions options = Parsed({"Why?", "--method=all", "--weights=1,2"});
  for (const v1::FusionMethod method : options.methods) {
    const auto weights = MakeGenerateRequest(options, method).fusion().weights();
    if (method == v1::FUSION_METHOD_LOGIT_MEAN || method == v1::FUSION_METHOD_PROB_MEAN) {
      EXPECT_THAT(weights, ElementsAre(1, 2)) << method;
    } else {
      EXPECT_THAT(weights, IsEmpty()) << method;
    }
  }
  EXPECT_THAT(RequestOf({"Why?", "--method=vote", "--weights=1,2"}).fusion().weights(),
              ElementsAre(1, 2));
}

TEST(AskOptionsTest, AnUnknownMethodOrPresetIsRefusedWithTheAllowedOnes) {
  AskOptions options;
  EXPECT_EQ(MakeAskParser(options).Parse({"--method=avg"}).status().message(),
            "--method=avg is not one of attention, logit_mean, prob_mean, prob_max, logit_max, "
            "per_prompt, vote, all");
  EXPECT_EQ(MakeAskParser(options).Parse({"--preset=x"}).status().message(),
            "--preset=x is not one of prototype");
}

}  // namespace
}  // namespace chorus
