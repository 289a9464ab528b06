#include "core/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/model/random_bits.h"

namespace chorus {
namespace {

using Row = std::vector<float>;
using testing::ElementsAre;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

// A choice that owns what TokenChoice borrows.
struct Ask {
  SamplingParams sampling;
  std::vector<int32_t> prompt;
  std::vector<int32_t> generated;
  std::vector<int32_t> banned;
  uint64_t seed = 0;
  int64_t index = 0;
  int32_t top_logprobs = 0;

  TokenChoice Choice() const {
    TokenChoice choice;
    choice.rows = {0};
    choice.sampling = &sampling;
    choice.prompt_tokens = &prompt;
    choice.generated_tokens = &generated;
    choice.banned_token_ids = &banned;
    choice.draw_seed = seed;
    choice.draw_index = index;
    choice.top_logprobs = top_logprobs;
    return choice;
  }
  ChosenToken Sample(const Row& row) const {
    return SampleToken(Choice(), row.data(), static_cast<int32_t>(row.size()));
  }
};

Row RandomRow(int size, unsigned seed, float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  Row row(size);
  for (float& value : row) value = normal(random);
  return row;
}

// Logits after bias, bans and penalties, in double, term by term.
std::vector<double> AdjustedReference(const Ask& ask, const Row& row) {
  std::vector<double> logits(row.begin(), row.end());
  const SamplingParams& sampling = ask.sampling;
  for (size_t id = 0; id < logits.size(); ++id) {
    const int32_t token = static_cast<int32_t>(id);
    if (sampling.logit_bias.count(token)) logits[id] += sampling.logit_bias.at(token);
    const auto& allowed = sampling.allowed_token_ids;
    const bool is_out = !allowed.empty() && std::count(allowed.begin(), allowed.end(), token) == 0;
    if (is_out || std::count(ask.banned.begin(), ask.banned.end(), token)) {
      logits[id] = kMinusInfinity;
    }
    const auto in_answer = std::count(ask.generated.begin(), ask.generated.end(), token);
    if (in_answer + std::count(ask.prompt.begin(), ask.prompt.end(), token) > 0) {
      logits[id] = logits[id] > 0 ? logits[id] / sampling.repetition_penalty
                                  : logits[id] * sampling.repetition_penalty;
    }
    logits[id] -= sampling.frequency_penalty * static_cast<double>(in_answer);
    if (in_answer > 0) logits[id] -= sampling.presence_penalty;
  }
  return logits;
}

// Every token that may be drawn, with its share, by sorting everything.
std::map<int32_t, double> SharesReference(const Ask& ask, const Row& row) {
  const std::vector<double> logits = AdjustedReference(ask, row);
  const SamplingParams& sampling = ask.sampling;
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<std::pair<double, int32_t>> order;  // (-logit, id) ascending
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > kMinusInfinity) order.push_back({-logits[id], static_cast<int32_t>(id)});
  }
  std::sort(order.begin(), order.end());
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < order.size()) {
    order.resize(sampling.top_k);
  }
  double total = 0.0;
  for (const auto& item : order) total += std::exp((-item.first - largest) / sampling.temperature);
  std::map<int32_t, double> shares;
  double held = 0.0;
  for (const auto& [negative, id] : order) {
    const double share = std::exp((-negative - largest) / sampling.temperature) / total;
    if (share * total >= sampling.min_p) shares[id] = share;
    held += share;
    if (sampling.top_p < 1.0f && held >= sampling.top_p) break;
  }
  const double kept =
      std::accumulate(shares.begin(), shares.end(), 0.0,
                      [](double sum, const auto& item) { return sum + item.second; });
  for (auto& [id, share] : shares) share /= kept;
  return shares;
}

// Draws often and compares each draw with where its uniform number falls in the reference.
void ExpectDrawsAgree(Ask ask, const Row& row, int num_draws) {
  const std::map<int32_t, double> shares = SharesReference(ask, row);
  for (int i = 0; i < num_draws; ++i) {
    ask.index = i;
    const ChosenToken chosen = ask.Sample(row);
    ASSERT_TRUE(chosen.status.ok()) << chosen.status;
    ASSERT_TRUE(shares.count(chosen.token_id)) << "drew " << chosen.token_id;
    double begin = 0.0;
    for (const auto& [id, share] : shares) begin += id < chosen.token_id ? share : 0.0;
    const double uniform = RandomUniform(ask.seed, static_cast<uint64_t>(i));
    // Shares are float32, relative error some 1e-6.
    EXPECT_GE(uniform, begin - 1e-5);
    EXPECT_LE(uniform, begin + shares.at(chosen.token_id) + 1e-5);
  }
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  EXPECT_EQ(Ask().Sample({1, 3, 2, 3}).token_id, 1);
  EXPECT_EQ(Ask().Sample(Row(50, 0.5f)).token_id, 0);
  Row row(49152, -1.0f);
  row[49151] = 2.0f;
  EXPECT_EQ(Ask().Sample(row).token_id, 49151);
  row[17] = 2.0f;
  EXPECT_EQ(Ask().Sample(row).token_id, 17);
}

TEST(SamplerTest, LogprobIsOfTheRowAsItCame) {
  const Row row = RandomRow(1000, 1);
  Ask ask;
  ask.sampling.temperature = 0.5f;
  ask.sampling.logit_bias = {{3, 100.0f}};
  ask.sampling.repetition_penalty = 1.5f;
  ask.prompt = {3};
  const ChosenToken chosen = ask.Sample(row);
  EXPECT_EQ(chosen.token_id, 3);
  double total = 0.0;
  for (const float value : row) total += std::exp(double{value});
  EXPECT_NEAR(chosen.logprob, row[3] - std::log(total), 1e-5);
}

TEST(SamplerTest, TopLogprobsAreSortedWithTiesToTheLowestId) {
  Ask ask;
  ask.top_logprobs = 4;
  ask.banned = {1};  // top_logprobs tell of the row before bans
  const ChosenToken chosen = ask.Sample({0, 5, 2, 5, 2, 2});
  EXPECT_EQ(chosen.token_id, 3);
  std::vector<int32_t> ids;
  for (const TokenLogprob& item : chosen.top_logprobs) ids.push_back(item.token_id);
  EXPECT_THAT(ids, ElementsAre(1, 3, 2, 4));
  EXPECT_EQ(chosen.top_logprobs[1].logprob, chosen.logprob);
  EXPECT_GT(chosen.top_logprobs[1].logprob, chosen.top_logprobs[2].logprob);
  ask.top_logprobs = 20;
  EXPECT_EQ(ask.Sample({0, 5, 2, 5, 2, 2}).top_logprobs.size(), 6u);
}

TEST(SamplerTest, ReturnsTheWholeRowIfAsked) {
  const Row row = RandomRow(10, 2);
  Ask ask;
  TokenChoice choice = ask.Choice();
  EXPECT_TRUE(SampleToken(choice, row.data(), 10).logits.empty());
  choice.want_logits = true;
  EXPECT_EQ(SampleToken(choice, row.data(), 10).logits, row);
}

TEST(SamplerTest, BiasBansAndAllowedIdsApplyToGreedyToo) {
  const Row row = {5, 4, 3, 2, 1};
  Ask ask;
  ask.banned = {0};
  EXPECT_EQ(ask.Sample(row).token_id, 1);
  ask.sampling.allowed_token_ids = {0, 2, 4};
  EXPECT_EQ(ask.Sample(row).token_id, 2);
  ask.sampling.logit_bias = {{4, 2.5f}};
  EXPECT_EQ(ask.Sample(row).token_id, 4);
  ask.sampling.logit_bias = {{1, 1e9f}, {77, 1.0f}, {-1, 1.0f}};  // not allowed, unknown, unknown
  EXPECT_EQ(ask.Sample(row).token_id, 2);
}

TEST(SamplerTest, PenaltiesFollowTheirFormulas) {
  Ask ask;
  ask.sampling.repetition_penalty = 2.0f;
  ask.prompt = {0};
  EXPECT_EQ(ask.Sample({3, 2, 1}).token_id, 1);        // 3 / 2 < 2
  EXPECT_EQ(ask.Sample({-1, -1.5f, -3}).token_id, 1);  // -1 * 2 < -1.5
  ask.generated = {1};
  EXPECT_EQ(ask.Sample({3, 2, 1.75f}).token_id, 2);
  ask = Ask();
  ask.sampling.presence_penalty = 1.0f;
  ask.prompt = {0};
  EXPECT_EQ(ask.Sample({3, 2.5f}).token_id, 0);  // the prompt does not count
  ask.generated = {0, 0, 0};
  EXPECT_EQ(ask.Sample({3, 1.5f}).token_id, 0);  // once, however often
  EXPECT_EQ(ask.Sample({3, 2.5f}).token_id, 1);
  ask = Ask();
  ask.sampling.frequency_penalty = 0.5f;
  ask.generated = {0, 0, 0};
  EXPECT_EQ(ask.Sample({3, 1.4f}).token_id, 0);
  EXPECT_EQ(ask.Sample({3, 1.6f}).token_id, 1);
}

TEST(SamplerTest, NothingLeftIsInvalidArgument) {
  Ask ask;
  ask.sampling.allowed_token_ids = {1, 2};
  ask.banned = {1, 2};
  for (const float temperature : {0.0f, 1.0f}) {
    ask.sampling.temperature = temperature;
    EXPECT_EQ(ask.Sample({1, 2, 3}).status.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SamplerTest, LogitsThatAreNotFiniteAreInternal) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Row& row : {Row{1, std::nanf(""), 2}, Row{1, infinity}, Row{-infinity, -infinity}}) {
    for (const float temperature : {0.0f, 1.0f}) {
      Ask ask;
      ask.sampling.temperature = temperature;
      EXPECT_EQ(ask.Sample(row).status.code(), absl::StatusCode::kInternal);
    }
  }
}

TEST(SamplerTest, TopKKeepsTheLowestIdsOfEquals) {
  Ask ask;
  ask.sampling.temperature = 1.0f;
  ask.sampling.top_k = 2;
  std::set<int32_t> drawn;
  for (ask.index = 0; ask.index < 200; ++ask.index) drawn.insert(ask.Sample({1, 2, 1, 1}).token_id);
  EXPECT_THAT(drawn, ElementsAre(0, 1));
}

TEST(SamplerTest, EveryParameterAgreesWithTheReference) {
  std::mt19937 random(20261123);
  const auto uniform = [&](float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random);
  };
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    const int size = round % 3 == 0 ? 2000 : 50;
    Ask ask;
    ask.seed = static_cast<uint64_t>(round);
    ask.sampling.temperature = uniform(0.2f, 2.0f);
    if (round % 2) ask.sampling.top_k = static_cast<int32_t>(uniform(1, 30));
    if (round % 5 < 3) ask.sampling.top_p = uniform(0.05f, 0.99f);
    if (round % 7 < 3) ask.sampling.min_p = uniform(0.0f, 0.3f);
    if (round % 4 == 1) ask.sampling.repetition_penalty = uniform(0.5f, 2.0f);
    if (round % 4 == 2) ask.sampling.presence_penalty = uniform(-2.0f, 2.0f);
    if (round % 4 == 3) ask.sampling.frequency_penalty = uniform(-2.0f, 2.0f);
    if (round % 6 == 1) ask.sampling.logit_bias = {{3, uniform(-5, 5)}, {7, uniform(-5, 5)}};
    if (round % 6 == 2) ask.sampling.allowed_token_ids = {1, 4, 9, 16, 25, 36, 49};
    if (round % 6 == 3) ask.banned = {0, 2, 4, 6, 8};
    ask.prompt = {1, 5, 5, 9};
    ask.generated = {2, 3, 3, 3, 9};
    ExpectDrawsAgree(ask, RandomRow(size, static_cast<unsigned>(round)), 40);
  }
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  const Row row = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  const double shares[] = {0.5, 0.3, 0.15, 0.05};
  constexpr int kDraws = 20000;
  Ask ask;
  ask.sampling.temperature = 1.0f;
  ask.seed = 42;
  std::vector<int> counts(4);
  for (ask.index = 0; ask.index < kDraws; ++ask.index) ++counts[ask.Sample(row).token_id];
  double chi_squared = 0.0;
  for (int i = 0; i < 4; ++i) {
    chi_squared += std::pow(counts[i] - kDraws * shares[i], 2) / (kDraws * shares[i]);
  }
  EXPECT_LT(chi_squared, 16.27);  // three degrees of freedom, one in a thousand; the seed is fixed
}

TEST(SamplerTest, ADrawIsAFunctionOfSeedAndIndex) {
  const Row row = RandomRow(300, 5);
  Ask ask;
  ask.sampling.temperature = 1.0f;
  std::set<int32_t> by_index, by_seed;
  for (int i = 0; i < 50; ++i) {
    ask.seed = 9;
    ask.index = i;
    const int32_t token = ask.Sample(row).token_id;
    EXPECT_EQ(ask.Sample(row).token_id, token);
    by_index.insert(token);
    ask.seed = static_cast<uint64_t>(i);
    ask.index = 9;
    by_seed.insert(ask.Sample(row).token_id);
  }
  EXPECT_GT(by_index.size(), 10u);
  EXPECT_GT(by_seed.size(), 10u);
}

TEST(SamplerTest, ExtremeTemperaturesAreDefined) {
  const Row row = {1.0f, 2.0f, 2.0f, -std::numeric_limits<float>::infinity()};
  Ask ask;
  ask.sampling.temperature = std::numeric_limits<float>::denorm_min();
  std::set<int32_t> cold, hot;
  for (ask.index = 0; ask.index < 100; ++ask.index) cold.insert(ask.Sample(row).token_id);
  EXPECT_THAT(cold, ElementsAre(1, 2));
  ask.sampling.temperature = std::numeric_limits<float>::max();
  for (ask.index = 0; ask.index < 100; ++ask.index) hot.insert(ask.Sample(row).token_id);
  EXPECT_THAT(hot, ElementsAre(0, 1, 2));  // what is at minus infinity is never drawn
}

TEST(RandomBitsTest, IsSplitMix64) {
  // The published generator from state 0 gives these; here the state is the mixed seed.
  EXPECT_EQ(MixBits(0x9e3779b97f4a7c15ull), 0xe220a8397b1dcdafull);
  EXPECT_EQ(MixBits(2 * 0x9e3779b97f4a7c15ull), 0x6e789e6aa1b965f4ull);
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_GE(RandomUniform(3, i), 0.0);
    EXPECT_LT(RandomUniform(3, i), 1.0);
  }
}

}  // namespace
}  // namespace chorus
