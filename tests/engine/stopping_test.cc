// How answers end: EOS, stop tokens, stop strings, lengths, and what of it reaches the stream.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<int32_t> Ids(const std::string& text) {
  return TestTokenizer().Encode(text, SpecialTokens::kRecognize);
}

// A model that says `ids` and then token 40 again and again.
FakeModelOptions Saying(std::vector<int32_t> ids) {
  FakeModelOptions model;
  model.forced_token = [ids](const TokenChoice& choice) -> std::optional<int32_t> {
    const auto index = static_cast<size_t>(choice.draw_index);
    return index < ids.size() ? ids[index] : 40;
  };
  return model;
}

EngineOptions WithEos() {
  EngineOptions options;
  options.eos_token_ids = {kTestEos};
  return options;
}

Request Asking(int32_t max_new_tokens) {
  Request request = SimpleRequest(FusionMethod::kLogitMean, max_new_tokens);
  request.stopping.ignore_eos = false;
  return request;
}

TEST(StoppingTest, EosIsInNeitherTextNorTokens) {
  TestEngine test(Saying(Ids("Oslo.<|im_end|>")), WithEos());
  const auto sink = test.Run(Asking(20));
  const Answer answer = sink->summary().answer;
  EXPECT_EQ(answer.reason, FinishReason::kEos);
  EXPECT_EQ(answer.text, "Oslo.");
  EXPECT_EQ(answer.stop, "<|im_end|>");
  EXPECT_EQ(answer.token_ids, Ids("Oslo."));
  EXPECT_EQ(sink->StreamedText(), "Oslo.");
  EXPECT_EQ(sink->StreamedIds(), Ids("Oslo."));
}

TEST(StoppingTest, EosAtOnceGivesAnEmptyAnswerAndNoEvent) {
  TestEngine test(Saying({kTestEos}), WithEos());
  const auto sink = test.Run(Asking(20));
  EXPECT_TRUE(sink->status().ok());
  EXPECT_THAT(sink->events(), IsEmpty());
  EXPECT_EQ(sink->summary().answer.reason, FinishReason::kEos);
  EXPECT_EQ(sink->summary().answer.mean_logprob, 0.0);
  EXPECT_EQ(sink->summary().generated_tokens, 0);
}

TEST(StoppingTest, IgnoredEosIsAnOrdinaryToken) {
  TestEngine test(Saying({kTestEos}), WithEos());
  Request request = Asking(3);
  request.stopping.ignore_eos = true;
  const auto sink = test.Run(request);
  EXPECT_THAT(sink->StreamedIds(), ElementsAre(kTestEos, 40, 40));
  EXPECT_EQ(sink->summary().answer.reason, FinishReason::kLength);
}

TEST(StoppingTest, StopTokenEndsWithItsSpelling) {
  TestEngine test(Saying(Ids("ab!")), WithEos());
  Request request = Asking(20);
  request.stopping.stop_token_ids = Ids("!");
  const Answer answer = test.Run(request)->summary().answer;
  EXPECT_EQ(answer.reason, FinishReason::kStopToken);
  EXPECT_EQ(answer.stop, "!");
  EXPECT_EQ(answer.text, "ab");
}

TEST(StoppingTest, StopStringIsCutFromTextAndKeptInTokens) {
  const std::vector<int32_t> ids = Ids("one\nQ: two");
  for (const bool include_stop : {false, true}) {
    TestEngine test(Saying(ids), WithEos());
    Request request = Asking(20);
    request.stopping.stop = {"zzz", "\nQ:"};
    request.stopping.include_stop = include_stop;
    const auto sink = test.Run(request);
    const Answer answer = sink->summary().answer;
    EXPECT_EQ(answer.reason, FinishReason::kStopString);
    EXPECT_EQ(answer.stop, "\nQ:");
    EXPECT_EQ(answer.text, include_stop ? "one\nQ:" : "one");
    EXPECT_EQ(sink->StreamedText(), answer.text);
    EXPECT_EQ(sink->StreamedIds(), Ids("one\nQ:"));
  }
}

TEST(StoppingTest, HeldBackStartOfAStopStringIsFlushedAtTheEnd) {
  TestEngine test(Saying(Ids("one\nQ<|im_end|>")), WithEos());
  Request request = Asking(20);
  request.stopping.stop = {"\nQ:"};
  const auto sink = test.Run(request);
  EXPECT_EQ(sink->summary().answer.text, "one\nQ");
  EXPECT_EQ(sink->StreamedText(), "one\nQ");
  EXPECT_THAT(sink->events().back().token_ids, IsEmpty());  // the text alone, with the EOS
  EXPECT_EQ(sink->events().back().text, "\nQ");
}

TEST(StoppingTest, LengthFlushesHalfACharacterToo) {
  const std::vector<int32_t> ids = Ids("\xc3\xa9");  // one letter, two bytes
  ASSERT_THAT(ids, SizeIs(2));
  TestEngine test(Saying(ids));
  EXPECT_EQ(test.Run(Asking(2))->summary().answer.text, "\xc3\xa9");
  const auto half = test.Run(Asking(1));
  EXPECT_EQ(half->summary().answer.text, "\xef\xbf\xbd");
  EXPECT_EQ(half->StreamedText(), "\xef\xbf\xbd");
}

TEST(StoppingTest, MinNewTokensBansEosAndStopTokensUntilThen) {
  std::vector<std::vector<int32_t>> banned;
  FakeModelOptions model;
  model.forced_token = [&](const TokenChoice& choice) -> std::optional<int32_t> {
    banned.push_back(choice.banned_token_ids == nullptr ? std::vector<int32_t>{}
                                                        : *choice.banned_token_ids);
    return choice.draw_index < 2 ? 40 : kTestEos;
  };
  TestEngine test(model, WithEos());
  Request request = Asking(20);
  request.stopping.stop_token_ids = {9};
  request.stopping.min_new_tokens = 2;
  EXPECT_EQ(test.Run(request)->summary().generated_tokens, 2);
  EXPECT_THAT(banned, ElementsAre(ElementsAre(kTestEos, 9), ElementsAre(kTestEos, 9), IsEmpty()));
}

TEST(StoppingTest, EveryTokenHasItsLogprobs) {
  TestEngine test;
  Request request = Asking(4);
  request.response.top_logprobs = 5;
  double sum = 0.0;
  const auto sink = test.Run(request);
  for (const TokenEvent& event : sink->events()) {
    ASSERT_THAT(event.logprobs, SizeIs(1));
    ASSERT_THAT(event.top_logprobs, ElementsAre(SizeIs(5)));
    EXPECT_EQ(event.top_logprobs[0][0].token_id, event.token_ids[0]);  // greedy
    EXPECT_EQ(event.top_logprobs[0][0].logprob, event.logprobs[0]);
    sum += event.logprobs[0];
  }
  EXPECT_DOUBLE_EQ(sink->summary().answer.mean_logprob, sum / 4);
}

// Prompt i says answers[i], whichever order the engine has them in.
FakeModelOptions EachSaying(const Request& request, std::vector<std::string> answers) {
  FakeModelOptions model;
  model.forced_token = [=](const TokenChoice& choice) -> std::optional<int32_t> {
    for (size_t i = 0; i < answers.size(); ++i) {
      if (choice.draw_seed != PromptSeed(request.sampling.seed, static_cast<int32_t>(i))) continue;
      const std::vector<int32_t> ids = Ids(answers[i] + "<|im_end|>");
      return ids[choice.draw_index];
    }
    return std::nullopt;
  };
  return model;
}

TEST(StoppingTest, PerPromptStreamsEveryAnswerUnderItsCallersIndex) {
  Request request = Asking(20);
  request.fusion.method = FusionMethod::kPerPrompt;
  TestEngine test(EachSaying(request, {"Bern", "Zurich", "Basel"}), WithEos());
  const auto sink = test.Run(request);
  const FinishSummary summary = sink->summary();
  ASSERT_THAT(summary.prompts, SizeIs(3));
  EXPECT_EQ(summary.answer.text, "Bern");
  EXPECT_EQ(sink->StreamedText(0), "Bern");
  EXPECT_EQ(sink->StreamedText(1), "Zurich");
  EXPECT_EQ(sink->StreamedText(2), "Basel");
  EXPECT_EQ(summary.prompts[1].text, "Zurich");
  EXPECT_EQ(summary.prompts[1].reason, FinishReason::kEos);
}

TEST(StoppingTest, VoteStreamsTheWinnerOnceAtTheEndWithTheTally) {
  Request request = Asking(20);
  request.fusion.method = FusionMethod::kVote;
  TestEngine test(EachSaying(request, {"Bern", "Basel", " bern.\nNext"}), WithEos());
  const auto sink = test.Run(request);
  const FinishSummary summary = sink->summary();
  ASSERT_THAT(summary.tally, SizeIs(2));
  EXPECT_EQ(summary.tally[0].answer, "bern");
  EXPECT_EQ(summary.tally[0].count, 2);
  EXPECT_THAT(summary.tally[0].prompt_indexes, ElementsAre(0, 2));
  EXPECT_THAT(summary.tally[1].prompt_indexes, ElementsAre(1));
  EXPECT_THAT(sink->events(), SizeIs(1));
  EXPECT_EQ(sink->StreamedText(), summary.answer.text);
  EXPECT_EQ(sink->StreamedIds(), summary.answer.token_ids);
  EXPECT_THAT(sink->events()[0].logprobs, SizeIs(summary.answer.token_ids.size()));
  const bool first = summary.prompts[0].mean_logprob >= summary.prompts[2].mean_logprob;
  EXPECT_EQ(summary.answer.text, summary.prompts[first ? 0 : 2].text);
}

}  // namespace
}  // namespace chorus
