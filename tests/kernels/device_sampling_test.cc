// The sampling kernels' own source, on the device that this is linked with, against CombineLogits,
// Disagreement, SampleToken and AppendLogprobs.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "core/model/sampler.h"
#include "tests/kernels/device_sampling_support.h"
#include "tests/kernels/test_device.h"

namespace chorus {
namespace {

class DeviceSamplingTest : public test::DeviceTest {};

using Row = std::vector<float>;

StepLogits OneRow(const Row& row) { return {{0}, static_cast<int32_t>(row.size()), row}; }

OwnedChoice Draws(float temperature, uint64_t seed = 1) {
  OwnedChoice owned;
  owned.choice.rows = {0};
  owned.sampling.temperature = temperature;
  owned.choice.draw_seed = seed;
  return owned;
}

std::vector<TokenChoice> BorrowAll(const std::vector<OwnedChoice>& owned) {
  std::vector<TokenChoice> choices;
  for (const OwnedChoice& each : owned) choices.push_back(each.Borrow());
  return choices;
}

// How often each token was chosen.
std::vector<int> Counts(const std::vector<OwnedChoice>& owned, const StepLogits& logits) {
  std::vector<int> counts(logits.vocab_size);
  for (const ChosenToken& chosen : SampleOnDevice(BorrowAll(owned), logits).chosen) {
    EXPECT_TRUE(chosen.status.ok()) << chosen.status;
    ++counts[chosen.token_id];
  }
  return counts;
}

bool SameBits(float a, float b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

void ExpectSameBits(const ChosenToken& a, const ChosenToken& b) {
  EXPECT_EQ(a.status, b.status);
  EXPECT_EQ(a.token_id, b.token_id);
  EXPECT_TRUE(SameBits(a.logprob, b.logprob));
  EXPECT_TRUE(SameBits(a.disagreement, b.disagreement));
  ASSERT_EQ(a.top_logprobs.size(), b.top_logprobs.size());
  for (size_t i = 0; i < a.top_logprobs.size(); ++i) {
    EXPECT_EQ(a.top_logprobs[i].token_id, b.top_logprobs[i].token_id);
    EXPECT_TRUE(SameBits(a.top_logprobs[i].logprob, b.top_logprobs[i].logprob));
  }
  EXPECT_TRUE(std::equal(a.target_logprobs.begin(), a.target_logprobs.end(),
                         b.target_logprobs.begin(), b.target_logprobs.end(), SameBits));
  EXPECT_TRUE(
      std::equal(a.logits.begin(), a.logits.end(), b.logits.begin(), b.logits.end(), SameBits));
}

// Sums of logits are the CPU's bits. Log-probabilities add a shift to a logit and lose a log-sum:
// a few roundings of numbers below `magnitude`, and a log-sum-exp as in LogprobLimit.
TEST_F(DeviceSamplingTest, CombinedRowsAreThoseOfTheCpu) {
  std::mt19937 random(11);
  constexpr float kSpread = 6.0f, kMagnitude = 64.0f, kLimit = 8 * 0x1p-24f * kMagnitude + 1.2e-5f;
  for (const int32_t vocab_size : {1, 7, 33, 1000, 5003}) {
    for (const bool has_odd : {false, true}) {
      const StepLogits logits = RandomLogits(8, vocab_size, kSpread, has_odd, random);
      std::vector<OwnedChoice> owned;
      for (int i = 0; i < 24; ++i) {
        owned.push_back(RandomChoice(logits, random));
        owned.back().choice.want_logits = true;
      }
      const std::vector<TokenChoice> choices = BorrowAll(owned);
      const std::vector<ChosenToken> chosen = SampleOnDevice(choices, logits).chosen;
      for (size_t i = 0; i < choices.size(); ++i) {
        const Row expected = CombineOnCpu(choices[i], logits);
        const bool is_exact =
            choices[i].rule != CombineRule::kProbMean && choices[i].rule != CombineRule::kProbMax;
        for (int32_t id = 0; id < vocab_size; ++id) {
          const float actual = chosen[i].logits[id];
          if (std::isnan(expected[id])) {
            ASSERT_TRUE(std::isnan(actual)) << id;
          } else if (is_exact || !std::isfinite(expected[id])) {
            ASSERT_EQ(actual, expected[id]) << id;
          } else {
            ASSERT_NEAR(actual, expected[id], kLimit) << id;
          }
        }
      }
    }
  }
}

TEST_F(DeviceSamplingTest, AWeightOfZeroTakesARowOutWhateverItHolds) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Row finite = {1.0f, 2.0f, -3.0f};
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
    StepLogits logits = {{0, 1}, 3, {odd, odd, odd}};
    logits.values.insert(logits.values.end(), finite.begin(), finite.end());
    for (const CombineRule rule : {CombineRule::kLogitMean, CombineRule::kProbMean}) {
      OwnedChoice owned;
      owned.choice.rule = rule;
      owned.choice.rows = {0, 1};
      owned.choice.weights = {0.0f, 1.0f};
      const TokenChoice choice = owned.Borrow();
      const DeviceSampling sampling = SampleOnDevice({&choice, 1}, logits);
      EXPECT_TRUE(sampling.chosen[0].status.ok()) << sampling.chosen[0].status;
      EXPECT_EQ(sampling.chosen[0].token_id, 1);
      const Row expected = CombineOnCpu(choice, logits);
      for (int i = 0; i < 3; ++i) EXPECT_NEAR(sampling.combined[i], expected[i], 1e-6f);
    }
  }
}

TEST_F(DeviceSamplingTest, ChoosesWhatTheCpuChooses) {
  std::mt19937 random(12);
  int num_near = 0, num_choices = 0, num_failed = 0;
  for (const int32_t vocab_size : {1, 7, 33, 1000, 5003}) {
    for (int round = 0; round < 2; ++round) {
      const StepLogits logits = RandomLogits(8, vocab_size, 3.0f, true, random);
      std::vector<OwnedChoice> owned;
      for (int i = 0; i < 40; ++i) owned.push_back(RandomChoice(logits, random));
      const std::vector<TokenChoice> choices = BorrowAll(owned);
      const DeviceSampling sampling = SampleOnDevice(choices, logits);
      for (size_t i = 0; i < choices.size(); ++i) {
        SCOPED_TRACE(testing::Message() << "vocabulary of " << vocab_size << ", choice " << i);
        // From the same combined row, so that only what follows is compared.
        const float* combined = choices[i].rule == CombineRule::kNone
                                    ? logits.Row(choices[i].rows[0])
                                    : sampling.combined.data() + i * vocab_size;
        num_near += ExpectSameChoice(sampling.chosen[i], choices[i], logits,
                                     Row(combined, combined + vocab_size));
        num_failed += !sampling.chosen[i].status.ok();
        ++num_choices;
        ASSERT_FALSE(HasFailure());
      }
    }
  }
  EXPECT_GT(num_failed, 15);
  EXPECT_LE(num_near, num_choices / 10) << "of " << num_choices;
}

TEST_F(DeviceSamplingTest, AChoiceHasTheSameBitsAloneAndAmongOthers) {
  std::mt19937 random(13);
  const StepLogits logits = RandomLogits(8, 5003, 3.0f, true, random);
  std::vector<OwnedChoice> owned;
  for (int i = 0; i < 24; ++i) owned.push_back(RandomChoice(logits, random));
  const std::vector<TokenChoice> choices = BorrowAll(owned);
  const std::vector<ChosenToken> together =
      SampleOnDevice(choices, logits, /*seed=*/1, true).chosen;
  for (size_t i = 0; i < choices.size(); ++i) {
    SCOPED_TRACE(i);
    StepLogits own;  // no other rows either
    own.vocab_size = logits.vocab_size;
    for (const int32_t row : logits.step_rows) {
      const TokenChoice& choice = choices[i];
      const auto has = [&](const std::vector<int32_t>& rows) {
        return std::count(rows.begin(), rows.end(), row) > 0;
      };
      if (!has(choice.rows) && !has(choice.compared_rows) && !has(choice.target_rows)) continue;
      own.step_rows.push_back(row);
      own.values.insert(own.values.end(), logits.Row(row), logits.Row(row) + logits.vocab_size);
    }
    ExpectSameBits(SampleOnDevice({&choices[i], 1}, own, /*seed=*/99 + i).chosen[0], together[i]);
  }
}

TEST_F(DeviceSamplingTest, LargeVocabularies) {
  for (const int32_t vocab_size : {50000, 151936}) {
    std::mt19937 random(14);
    StepLogits logits = RandomLogits(1, vocab_size, 3.0f, false, random);
    logits.values[49999] = logits.values[20123] = 15.0f;
    std::vector<OwnedChoice> owned;
    owned.push_back(Draws(0.0f));
    owned[0].choice.top_logprobs = 20;
    for (uint64_t seed = 1; seed < 8; ++seed) {
      owned.push_back(Draws(0.8f, seed));
      if (seed % 2 == 0) owned.back().sampling.top_k = 4000;
      if (seed % 3 != 0) owned.back().sampling.top_p = 0.9f;
    }
    for (OwnedChoice& each : owned) each.choice.rows = logits.step_rows;
    const std::vector<TokenChoice> choices = BorrowAll(owned);
    const std::vector<ChosenToken> chosen = SampleOnDevice(choices, logits).chosen;
    EXPECT_EQ(chosen[0].token_id, 20123);
    EXPECT_EQ(chosen[0].top_logprobs[1].token_id, 49999);
    int num_near = 0;
    for (size_t i = 0; i < choices.size(); ++i) {
      num_near += ExpectSameChoice(chosen[i], choices[i], logits, logits.values);
    }
    EXPECT_LE(num_near, 2);
  }
}

// Where all masses are equal nothing is rounded, so cuts are exact.
TEST_F(DeviceSamplingTest, TiesAtACutGoToTheLowestIds) {
  const StepLogits logits = OneRow(Row(3000, 0.25f));  // one bin, too many for the list
  struct Case {
    int32_t top_k;
    float top_p;
    int32_t kept;
  };
  for (const Case& each :
       {Case{8, 1.0f, 8}, Case{0, 0.5f, 1500}, Case{8, 0.5f, 4}, Case{8, 0.51f, 5},
        Case{0, 1e-30f, 1}, Case{3000, 1.0f, 3000}, Case{2999, 0.99999f, 2999}}) {
    std::vector<OwnedChoice> owned;
    for (uint64_t seed = 0; seed < 24; ++seed) {
      owned.push_back(Draws(1.0f, seed));
      owned.back().sampling.top_k = each.top_k;
      owned.back().sampling.top_p = each.top_p;
    }
    const std::vector<TokenChoice> choices = BorrowAll(owned);
    const std::vector<ChosenToken> chosen = SampleOnDevice(choices, logits).chosen;
    for (size_t i = 0; i < choices.size(); ++i) {
      EXPECT_LT(chosen[i].token_id, each.kept);
      EXPECT_EQ(chosen[i].token_id, SampleToken(choices[i], logits.values.data(), 3000).token_id);
    }
  }
}

TEST_F(DeviceSamplingTest, ZerosOfBothSignsAreTied) {
  const StepLogits logits = OneRow({-1.0f, -0.0f, 0.0f, -0.0f, -1.0f});
  OwnedChoice owned = Draws(0.0f);
  owned.choice.top_logprobs = 3;
  const TokenChoice choice = owned.Borrow();
  const ChosenToken chosen = SampleOnDevice({&choice, 1}, logits).chosen[0];
  EXPECT_EQ(chosen.token_id, 1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(chosen.top_logprobs[i].token_id, i + 1);
  std::vector<OwnedChoice> draws;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    draws.push_back(Draws(1e-38f, seed));
    draws.back().sampling.top_k = 2;
  }
  const std::vector<int> counts = Counts(draws, logits);
  EXPECT_EQ(counts[1] + counts[2], 60);
  EXPECT_GT(counts[1], 15);
  EXPECT_GT(counts[2], 15);
}

// Pearson's statistic over seven tokens: above 22.5 once in 1,000 seeds, and the seeds are fixed.
TEST_F(DeviceSamplingTest, DrawsHaveTheSharesOfTheSoftmax) {
  const StepLogits logits = OneRow({0.0f, 1.0f, -1.0f, 2.0f, 0.5f, 1.5f, -0.5f});
  constexpr int kDraws = 600;
  std::vector<OwnedChoice> owned;
  for (int i = 0; i < kDraws; ++i) {
    owned.push_back(Draws(2.0f, 5));
    owned.back().choice.draw_index = i;
  }
  const std::vector<int> counts = Counts(owned, logits);
  double total = 0.0, statistic = 0.0;
  for (const float value : logits.values) total += std::exp(value / 2.0);
  for (size_t id = 0; id < counts.size(); ++id) {
    const double expected = kDraws * std::exp(logits.values[id] / 2.0) / total;
    statistic += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  EXPECT_LT(statistic, 22.5);
}

}  // namespace
}  // namespace chorus
