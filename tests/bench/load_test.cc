#include "tests/bench/load.h"

#include <vector>

#include "gtest/gtest.h"

namespace chorus {
namespace {

std::vector<Arrival> Answer(const std::vector<double>& seconds) {
  std::vector<Arrival> arrivals;
  for (double second : seconds) arrivals.push_back({absl::UnixEpoch() + absl::Seconds(second), 1});
  return arrivals;
}

TEST(LoadTest, DecodeRateCountsTheTimeInWhichAllAnswersAreWritten) {
  LoadResult result;
  result.answers = {Answer({0, 1, 2, 3, 4}), Answer({2, 3, 4, 5, 6})};
  // From 2 to 4 seconds: two tokens of each.
  EXPECT_DOUBLE_EQ(DecodeTokensPerSecond(result), 2.0);
}

TEST(LoadTest, DecodeRateCountsAllTokensOfAMessage) {
  LoadResult result;
  result.answers = {{{absl::UnixEpoch(), 1}, {absl::UnixEpoch() + absl::Seconds(2), 7}}};
  EXPECT_DOUBLE_EQ(DecodeTokensPerSecond(result), 3.5);
}

TEST(LoadTest, AnswersThatWaitForOthersHaveNoDecodeRate) {
  LoadResult result;
  result.answers = {Answer({0, 1}), Answer({2, 3})};
  EXPECT_EQ(DecodeTokensPerSecond(result), 0.0);
}

}  // namespace
}  // namespace chorus
