#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/answer_json.h"
#include "client/answer_printer.h"

namespace chorus {
namespace {

v1::GenerateResponse Chunk(const std::string& text, int prompt_index = 0) {
  v1::GenerateResponse event;
  event.mutable_chunk()->set_text(text);
  event.mutable_chunk()->set_prompt_index(prompt_index);
  return event;
}

v1::GenerateResponse Finish(int num_prompts = 0) {
  v1::GenerateResponse event;
  v1::FinishInfo& finish = *event.mutable_finish();
  finish.set_reason(v1::FINISH_REASON_STOP_STRING);
  finish.set_stop("\n");
  finish.mutable_usage()->set_generated_tokens(3);
  finish.mutable_usage()->set_prompt_tokens(20);
  finish.mutable_usage()->set_cached_tokens(4);
  finish.mutable_timing()->set_first_token_seconds(0.25);
  finish.mutable_timing()->set_total_seconds(1.5);
  for (int i = 0; i < num_prompts; ++i) finish.add_prompts()->set_index(i);
  return event;
}

struct Look {
  bool is_terminal = false;
  bool has_colours = false;
  bool is_one_of_several = false;
};

std::string Printed(v1::FusionMethod method, const std::vector<v1::GenerateResponse>& events,
                    const Look& look = {}) {
  std::istringstream in;
  std::ostringstream out, err;
  Console console = {in, out, err, look.is_terminal, look.has_colours};
  AnswerPrinter printer(console, method, look.is_one_of_several);
  for (const v1::GenerateResponse& event : events) printer.Add(event);
  printer.Close();
  EXPECT_EQ(err.str(), "");
  return out.str();
}

TEST(AnswerPrinterTest, APlainAnswerIsTheBareTextAndANewline) {
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, {Chunk("Par"), Chunk("is.\nIt"), Finish()}),
            "Par"
            "is.\nIt\n");
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, {Chunk("Paris.\n"), Finish()}), "Paris.\n");
}

TEST(AnswerPrinterTest, AnEmptyAnswerIsAnEmptyLine) {
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, {Finish()}), "\n");
  EXPECT_THAT(Printed(v1::FUSION_METHOD_ATTENTION, {Finish()}, {.is_one_of_several = true}),
              ::testing::StartsWith("attention\n\n  ended by"));
}

TEST(AnswerPrinterTest, TextComesOutWithItsChunkNotLater) {
  std::istringstream in;
  std::ostringstream out, err;
  Console console = {in, out, err};
  AnswerPrinter printer(console, v1::FUSION_METHOD_ATTENTION, /*is_one_of_several=*/false);
  printer.Add(Chunk("Par"));
  EXPECT_EQ(out.str(), "Par");
  printer.Add(Chunk("is"));
  EXPECT_EQ(out.str(), "Paris");
}

TEST(AnswerPrinterTest, AmongSeveralMethodsItHasAHeadingAndStatistics) {
  EXPECT_EQ(Printed(v1::FUSION_METHOD_LOGIT_MEAN, {Chunk("Paris.\nYes"), Finish()},
                    {.is_one_of_several = true}),
            "logit_mean\n  Paris.\n  Yes\n"
            "  ended by stop_string \"\\n\"; 3 tokens in 1.50 s, the first after 0.25 s; "
            "20 prompt tokens, 4 of them cached\n");
}

TEST(AnswerPrinterTest, ColoursComeOnlyWhenTheConsoleHasThem) {
  const std::vector<v1::GenerateResponse> events = {Chunk("Paris"), Finish()};
  const std::string plain = Printed(v1::FUSION_METHOD_ATTENTION, events, {.is_terminal = true});
  EXPECT_THAT(plain, ::testing::Not(::testing::HasSubstr("\x1b")));
  const std::string coloured =
      Printed(v1::FUSION_METHOD_ATTENTION, events, {.is_terminal = true, .has_colours = true});
  EXPECT_THAT(coloured, ::testing::HasSubstr("\x1b[1mattention\x1b[0m\n  Paris\n"));
}

TEST(AnswerPrinterTest, ControlCharactersReachAPipeButNoTerminal) {
  const std::vector<v1::GenerateResponse> events = {
      Chunk("a\x1b[31mb\xC2\x9B"
            "c\td\x7f")};
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, events),
            "a\x1b[31mb\xC2\x9B"
            "c\td\x7f\n");
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, events, {.is_terminal = true}),
            "attention\n  a\xEF\xBF\xBD[31mb\xEF\xBF\xBD"
            "c\td\xEF\xBF\xBD\n");
}

TEST(AnswerPrinterTest, PerPromptAnswersComeAsWholeLinesWithTheirIndex) {
  EXPECT_EQ(Printed(v1::FUSION_METHOD_PER_PROMPT,
                    {Chunk("Par", 0), Chunk("It is ", 1), Chunk("is.\nYes", 0),
                     Chunk("Paris.\n", 1), Finish(/*num_prompts=*/3)}),
            "[0] Paris.\n[1] It is Paris.\n[0] Yes\n[2] \n");
}

TEST(AnswerPrinterTest, AVoteShowsItsTally) {
  v1::GenerateResponse finish = Finish();
  v1::VoteCount& vote = *finish.mutable_finish()->add_tally();
  vote.set_answer("paris");
  vote.set_count(2);
  vote.add_prompt_indexes(0);
  vote.add_prompt_indexes(3);
  EXPECT_THAT(Printed(v1::FUSION_METHOD_VOTE, {Chunk("Paris"), finish}, {.is_terminal = true}),
              ::testing::HasSubstr("vote\n  Paris\n  2 x \"paris\" (prompts 0, 3)\n"));
}

TEST(AnswerPrinterTest, AlternativesStandBelowTheAnswerALineAToken) {
  v1::GenerateResponse chunk = Chunk("Paris");
  v1::TopLogprobs& top = *chunk.mutable_chunk()->add_top_logprobs();
  for (const auto& [text, logprob] : {std::pair("Paris", -0.125f), std::pair("\n", -2.5f)}) {
    v1::TokenLogprob& entry = *top.add_entries();
    entry.set_text(text);
    entry.set_logprob(logprob);
  }
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, {chunk, Finish()}),
            "Paris\n\"Paris\" -0.125  \"\\n\" -2.500\n");
}

TEST(AnswerPrinterTest, AnAnswerCutOffStillEndsItsLine) {
  EXPECT_EQ(Printed(v1::FUSION_METHOD_ATTENTION, {Chunk("Par")}), "Par\n");
}

TEST(AnswerJsonTest, KeysAreTheSameAndInOrderWhateverCame) {
  const std::vector<std::string> keys = {"method", "text",        "token_ids", "finish_reason",
                                         "stop",   "usage",       "timing",    "prompts",
                                         "tally",  "prompt_info", "tokens"};
  for (const bool has_events : {false, true}) {
    AnswerJson answer(v1::FUSION_METHOD_PROB_MAX);
    if (has_events) answer.Add(Finish());
    std::vector<std::string> found;
    for (const auto& [key, value] : answer.object().items()) found.push_back(key);
    EXPECT_EQ(found, keys);
  }
}

TEST(AnswerJsonTest, HoldsEverythingThatTheStreamSaid) {
  AnswerJson answer(v1::FUSION_METHOD_VOTE);
  v1::GenerateResponse info;
  info.mutable_prompt_info()->set_seed(18446744073709551615u);
  info.mutable_prompt_info()->add_segment_tokens(7);
  answer.Add(info);
  v1::GenerateResponse chunk = Chunk("Paris", /*prompt_index=*/2);
  chunk.mutable_chunk()->add_token_ids(42);
  chunk.mutable_chunk()->add_logprobs(-0.5f);
  v1::TokenLogprob& entry = *chunk.mutable_chunk()->add_top_logprobs()->add_entries();
  entry.set_token_id(42);
  entry.set_text("Paris");
  entry.set_logprob(-0.5f);
  answer.Add(chunk);
  v1::GenerateResponse finish = Finish(/*num_prompts=*/1);
  finish.mutable_finish()->set_text("Paris");
  finish.mutable_finish()->add_token_ids(42);
  finish.mutable_finish()->mutable_prompts(0)->set_reason(v1::FINISH_REASON_LENGTH);
  v1::VoteCount& vote = *finish.mutable_finish()->add_tally();
  vote.set_answer("paris");
  vote.set_count(1);
  vote.add_prompt_indexes(0);
  answer.Add(finish);
  const nlohmann::json expected = nlohmann::json::parse(R"({
    "method": "vote", "text": "Paris", "token_ids": [42], "finish_reason": "stop_string",
    "stop": "\n",
    "usage": {"prompt_tokens": 20, "cached_tokens": 4, "generated_tokens": 3, "model_steps": 0},
    "timing": {"queue_seconds": 0.0, "first_token_seconds": 0.25, "total_seconds": 1.5},
    "prompts": [{"index": 0, "text": "", "token_ids": [], "finish_reason": "length", "stop": "",
                 "mean_logprob": 0.0}],
    "tally": [{"answer": "paris", "count": 1, "prompt_indexes": [0]}],
    "prompt_info": {"request_id": "", "seed": 18446744073709551615, "segment_tokens": [7],
                    "original_length": 0, "prompt_tokens": 0, "cached_tokens": 0, "worker": 0},
    "tokens": [{"token_id": 42, "logprob": -0.5, "prompt_index": 2,
                "top_logprobs": [{"token_id": 42, "text": "Paris", "logprob": -0.5}],
                "attribution": null, "disagreement": null, "text": null}]})");
  EXPECT_EQ(nlohmann::json::parse(JsonLine(answer.object())), expected);
}

TEST(AnswerJsonTest, IsOneLineOfValidUtf8EvenForBrokenText) {
  AnswerJson answer(v1::FUSION_METHOD_ATTENTION);
  v1::GenerateResponse finish = Finish();
  finish.mutable_finish()->set_text(
      "a\nb\xFF"
      "é");
  answer.Add(finish);
  const std::string line = JsonLine(answer.object());
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(line)["text"],
            "a\nb\xEF\xBF\xBD"
            "é");
}

}  // namespace
}  // namespace chorus
