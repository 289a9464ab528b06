#include "client/load_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/load_report.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;

const absl::Time kStart = absl::UnixEpoch() + absl::Seconds(1000);

// Sent at `sent` seconds after kStart; one token at each of `arrivals` seconds after that.
CallRecord Record(double sent, const std::vector<double>& arrivals) {
  CallRecord record;
  record.sent_at = kStart + absl::Seconds(sent);
  for (const double seconds : arrivals) {
    record.arrivals.push_back({.seconds = seconds, .num_tokens = 1});
  }
  record.finish.mutable_usage()->set_generated_tokens(static_cast<int>(arrivals.size()));
  return record;
}

TEST(LoadResultTest, GapsAreBetweenArrivalsOfOnePrompt) {
  CallRecord record = Record(0, {1, 2, 4, 8});
  record.arrivals[1].prompt_index = 1;
  record.arrivals[3].prompt_index = 1;
  const std::vector<TokenGap> gaps = TokenGaps(record);
  ASSERT_EQ(gaps.size(), 2u);
  EXPECT_EQ(gaps[0].begin, kStart + absl::Seconds(1));
  EXPECT_EQ(gaps[0].end, kStart + absl::Seconds(4));
  EXPECT_EQ(gaps[1].begin, kStart + absl::Seconds(2));
  EXPECT_EQ(gaps[1].end, kStart + absl::Seconds(8));
}

TEST(LoadResultTest, TokensThatCameTogetherAreOneGapAndZeroes) {
  CallRecord record = Record(0, {0.5, 0.75});
  record.arrivals[1].num_tokens = 4;
  LoadResult result;
  result.Add(record, {});
  EXPECT_EQ(result.ttft.Summarize().max, 0.5);
  const Summary gaps = result.inter_token.Summarize();
  EXPECT_EQ(gaps.count, 4);
  EXPECT_EQ(gaps.max, 0.25);
  EXPECT_EQ(gaps.mean, 0.0625);
  EXPECT_EQ(gaps.p50, 0);
}

TEST(LoadResultTest, EveryRequestIsOkCancelledOrAnError) {
  LoadResult result;
  result.Add(Record(0, {1}), {});
  CallRecord ours = Record(0, {1, 2});
  ours.was_cancelled = true;
  ours.status = absl::CancelledError("");
  result.Add(ours, {});
  CallRecord theirs = Record(0, {});
  theirs.status = absl::CancelledError("shutting down");
  result.Add(theirs, {});
  CallRecord late = Record(0, {1});
  late.was_cancelled = true;
  result.Add(late, {});
  CallRecord failed = Record(0, {});
  failed.was_cancelled = true;
  failed.status = absl::UnavailableError("gone");
  result.Add(failed, {});
  EXPECT_EQ(result.num_ok, 2);
  EXPECT_EQ(result.num_cancelled, 1);
  EXPECT_EQ(result.num_failed(), 2);
  EXPECT_EQ(result.errors[absl::StatusCode::kCancelled].first_message, "shutting down");
  EXPECT_EQ(result.errors[absl::StatusCode::kUnavailable].count, 1);
  EXPECT_EQ(result.generated_tokens, 1 + 2 + 1);
  EXPECT_EQ(result.ttft.Summarize().count, 3);
  EXPECT_EQ(result.end_to_end.Summarize().count, 2);
}

TEST(LoadResultTest, AnAnswerIsRightIfItsFirstLineHoldsAGoldAnswerInAnyCase) {
  EXPECT_TRUE(IsRightAnswer("It is PARIS.\nNo.", {"Rome", "paris"}));
  EXPECT_FALSE(IsRightAnswer("It is Rome.\nParis", {"Paris"}));
  EXPECT_FALSE(IsRightAnswer("Paris", {}));
  EXPECT_TRUE(IsRightAnswer("the city of YAOUND\xC3\x89", {"Yaound\xC3\xA9"}));
}

TEST(StallProbeTest, ComparesGapsBeforeWithThoseThatOverlapItsWait) {
  StallProbe probe(/*prompt_tokens=*/500);
  // Before 10: gaps of 1, 1, 2. From 10 to 13, while the probe waits: 3 that begins before it is
  // sent, 2.5 that ends after its first token. After it: 9.
  for (const TokenGap& gap : TokenGaps(Record(0, {5, 6, 7, 9, 12, 14.5, 23.5}))) probe.AddGap(gap);
  probe.OnSent(kStart + absl::Seconds(10));
  EXPECT_THAT(probe.Result().error, HasSubstr("before or during"));  // all came before it was sent

  StallProbe second(/*prompt_tokens=*/500);
  second.OnSent(kStart + absl::Seconds(10));
  for (const TokenGap& gap : TokenGaps(Record(0, {5, 6, 7, 9, 12, 14.5, 23.5}))) second.AddGap(gap);
  second.OnDone(Record(10, {3}));
  const StallProbeResult result = second.Result();
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.prompt_tokens, 500);
  EXPECT_EQ(result.ttft, 3);
  EXPECT_EQ(result.median_inter_token_before, 1);
  EXPECT_EQ(result.p99_inter_token_during, 3);
  EXPECT_EQ(result.max_inter_token_during, 3);
  EXPECT_EQ(result.ratio, 3);
}

TEST(StallProbeTest, SaysWhyThereIsNothingToCompare) {
  EXPECT_THAT(StallProbe(5).Result().error, HasSubstr("ended before --stall_probe_after"));
  StallProbe failed(5);
  failed.OnSent(kStart);
  CallRecord record;
  record.status = absl::InvalidArgumentError("too long");
  failed.OnDone(record);
  EXPECT_EQ(failed.Result().error, "the probe failed: too long");
}

std::vector<std::string> Keys(const nlohmann::ordered_json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST(LoadReportTest, JsonAlwaysHasTheSameKeys) {
  const std::vector<std::string> keys = {"mode",
                                         "method",
                                         "clients",
                                         "rate",
                                         "seed",
                                         "seconds",
                                         "requests",
                                         "error_messages",
                                         "tokens",
                                         "requests_per_second",
                                         "generated_tokens_per_second",
                                         "prompt_tokens_per_second",
                                         "ttft_seconds",
                                         "inter_token_seconds",
                                         "end_to_end_seconds",
                                         "queue_seconds",
                                         "answers_right",
                                         "stall_probe"};
  LoadOptions closed, open;
  closed.ask.methods = open.ask.methods = {v1::FUSION_METHOD_VOTE, v1::FUSION_METHOD_PROB_MAX};
  open.rate = 2.5;
  LoadResult result;
  const nlohmann::ordered_json empty = LoadJson(closed, result, /*has_answers=*/false);
  EXPECT_EQ(Keys(empty), keys);
  EXPECT_EQ(empty["mode"], "closed");
  EXPECT_EQ(empty["method"], "vote,prob_max");
  EXPECT_EQ(empty["clients"], 8);
  EXPECT_EQ(empty["rate"], nullptr);
  EXPECT_EQ(empty["answers_right"], nullptr);
  result.num_sent = 1;
  result.seconds = 2;
  result.stall_probe.emplace();
  result.Add(Record(0, {1}), {});
  const nlohmann::ordered_json full = LoadJson(open, result, /*has_answers=*/true);
  EXPECT_EQ(Keys(full), keys);
  EXPECT_EQ(full["mode"], "open");
  EXPECT_EQ(full["clients"], nullptr);
  EXPECT_EQ(full["rate"], 2.5);
  EXPECT_EQ(full["requests_per_second"], 0.5);
  EXPECT_EQ(full["answers_right"], 0);
  EXPECT_EQ(Keys(full["ttft_seconds"]),
            (std::vector<std::string>{"count", "mean", "p50", "p90", "p95", "p99", "max"}));
}

TEST(LoadReportTest, TheTableNamesErrorsWithTheirFirstMessage) {
  LoadOptions options;
  options.ask.methods = {v1::FUSION_METHOD_ATTENTION};
  LoadResult result;
  result.num_sent = 2;
  result.num_not_sent = 3;
  CallRecord failed;
  failed.status = absl::ResourceExhaustedError("queue full");
  result.Add(failed, {});
  result.Add(failed, {});
  const std::string table = LoadTable(options, result, /*has_answers=*/false);
  EXPECT_THAT(table, HasSubstr("closed loop, 8 clients, attention"));
  EXPECT_THAT(table, HasSubstr("2 sent: 0 ok, 0 cancelled, 2 failed"));
  EXPECT_THAT(table, HasSubstr("RESOURCE_EXHAUSTED 2 times, the first: queue full"));
  EXPECT_THAT(table, HasSubstr("3 arrivals not sent"));
}

}  // namespace
}  // namespace chorus
