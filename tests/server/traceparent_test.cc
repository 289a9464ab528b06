#include "server/traceparent.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "server/call_info.h"

namespace chorus {
namespace {

constexpr char kTraceId[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kParentId[] = "b7ad6b7169203331";

std::string Header(const std::string& version, const std::string& more = "") {
  return version + "-" + kTraceId + "-" + kParentId + "-01" + more;
}

TEST(TraceparentTest, ReadsVersionZeroAndWhatALaterOneHasInCommon) {
  for (const std::string& header :
       {Header("00"), Header("01"), Header("cc", "-what-the-future-will-be-like")}) {
    const auto trace = ParseTraceparent(header);
    ASSERT_TRUE(trace.has_value()) << header;
    EXPECT_EQ(trace->trace_id, kTraceId);
    EXPECT_EQ(trace->parent_id, kParentId);
    EXPECT_EQ(trace->flags, "01");
  }
}

// The cases of the specification's own test suite, by hand.
TEST(TraceparentTest, IgnoresWhatIsMalformed) {
  const std::string good = Header("00");
  ASSERT_TRUE(ParseTraceparent(good).has_value());
  for (const std::string& header :
       {std::string(), std::string("00"), good + "-", good + "-x", good + " ", " " + good,
        Header("ff"), Header("FF"), Header("0x"), Header("01", "x"), Header("0"), Header("000"),
        "00-" + std::string(32, '0') + "-" + kParentId + "-01",
        std::string("00-") + kTraceId + "-" + std::string(16, '0') + "-01",
        std::string("00-0AF7651916CD43DD8448EB211C80319C-") + kParentId + "-01",
        std::string("00-") + kTraceId + "-B7AD6B7169203331-01",
        std::string("00-") + kTraceId + "-" + kParentId + "-0X",
        std::string("00_") + kTraceId + "_" + kParentId + "_01",
        std::string("00-") + kTraceId + "0-" + std::string(kParentId).substr(1) + "-01"}) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
  for (size_t i = 0; i < good.size(); ++i) {
    std::string header = good;
    header[i] = '\xFF';
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << i;
    EXPECT_FALSE(ParseTraceparent(good.substr(0, i)).has_value()) << i;
  }
}

TEST(TraceparentTest, AnswersWithTheSameTraceAndAnotherSpan) {
  const auto trace = ParseTraceparent(Header("cc", "-more"));
  std::set<std::string> ids;
  for (int i = 0; i < 100; ++i) {
    const std::string span_id = NewSpanId();
    const auto echo = ParseTraceparent(FormatTraceparent(*trace, span_id));
    ASSERT_TRUE(echo.has_value()) << span_id;
    EXPECT_EQ(echo->trace_id, kTraceId);
    EXPECT_EQ(echo->parent_id, span_id);
    EXPECT_EQ(echo->flags, "01");
    ids.insert(span_id);
  }
  EXPECT_EQ(ids.size(), 100u);
}

TEST(PhaseTimesTest, AddUpToTheTotalWhereverTheRequestEnded) {
  FinishSummary summary;
  const auto expect = [&](double queue, double prefill, double decode) {
    const PhaseTimes times = PhaseTimesOf(summary);
    EXPECT_EQ(times.queue, absl::Seconds(queue));
    EXPECT_EQ(times.prefill, absl::Seconds(prefill));
    EXPECT_EQ(times.decode, absl::Seconds(decode));
  };
  expect(0, 0, 0);  // never submitted
  summary.queue_time = summary.total_time = absl::Seconds(2);
  expect(2, 0, 0);  // never started
  summary.total_time = absl::Seconds(5);
  expect(2, 3, 0);  // no token
  summary.first_token_time = absl::Seconds(3);
  expect(2, 1, 2);
}

}  // namespace
}  // namespace chorus
