#include "client/load_statistics.h"

#include <gtest/gtest.h>

namespace chorus {
namespace {

TEST(LoadStatisticsTest, NearestRankIsTheSmallestSampleNotBelowTheShare) {
  std::vector<float> samples = {50, 20, 15, 40, 35};
  EXPECT_EQ(NearestRank(samples, 0.05), 15);
  EXPECT_EQ(NearestRank(samples, 0.30), 20);
  EXPECT_EQ(NearestRank(samples, 0.40), 20);
  EXPECT_EQ(NearestRank(samples, 0.41), 35);
  EXPECT_EQ(NearestRank(samples, 1.00), 50);
  std::vector<float> none;
  EXPECT_EQ(NearestRank(none, 0.5), 0);
}

TEST(LoadStatisticsTest, OfOneToAHundredThePercentilesAreTheirNumbers) {
  SampleSet samples;
  for (int i = 100; i >= 1; --i) samples.Add(i);
  const Summary summary = samples.Summarize();
  EXPECT_EQ(summary.count, 100);
  EXPECT_EQ(summary.mean, 50.5);
  EXPECT_EQ(summary.p50, 50);
  EXPECT_EQ(summary.p90, 90);
  EXPECT_EQ(summary.p95, 95);
  EXPECT_EQ(summary.p99, 99);
  EXPECT_EQ(summary.max, 100);
}

TEST(LoadStatisticsTest, WithoutSamplesEverythingIsZero) {
  const Summary summary = SampleSet().Summarize();
  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.mean, 0);
  EXPECT_EQ(summary.p99, 0);
  EXPECT_EQ(summary.max, 0);
}

TEST(LoadStatisticsTest, OneSampleIsEveryPercentile) {
  SampleSet samples;
  samples.Add(0.25);
  const Summary summary = samples.Summarize();
  EXPECT_EQ(summary.p50, 0.25);
  EXPECT_EQ(summary.p99, 0.25);
  EXPECT_EQ(summary.max, 0.25);
}

// Of n samples, k kept at random: a percentile's rank has a standard deviation of at most
// n * sqrt(1 / (4 k)); six of them is the tolerance.
TEST(LoadStatisticsTest, BeyondTheCapacityARandomChoiceStaysAndSumsAreOfAll) {
  constexpr int kSamples = 100000;
  constexpr int kCapacity = 1000;
  SampleSet samples(kCapacity);
  for (int i = 1; i <= kSamples; ++i) samples.Add(i);
  const Summary summary = samples.Summarize();
  EXPECT_EQ(summary.count, kSamples);
  EXPECT_EQ(summary.mean, (kSamples + 1) / 2.0);
  EXPECT_EQ(summary.max, kSamples);
  EXPECT_NEAR(summary.p50, kSamples / 2.0, 6 * kSamples * 0.5 / 31.6);
}

}  // namespace
}  // namespace chorus
