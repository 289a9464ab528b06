// Probes and disagreement through a whole runner, on a tiny model.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/model/torch_model_runner.h"
#include "tests/model/plan_builder.h"

namespace chorus {
namespace {

constexpr char kTiny[] = "tests/golden/models/tiny_gqa";
constexpr char kHybrid[] = "tests/golden/models/tiny_hybrid";

class ProbesTest : public testing::TestWithParam<ModelDtype> {
 protected:
  void SetUp() override {
    auto weights =
        LoadSharedWeights({.model_directory = kTiny, .dtype = GetParam(), .num_threads = 2});
    ASSERT_TRUE(weights.ok()) << weights.status();
    weights_ = *std::move(weights);
  }

  std::unique_ptr<ModelRunner> MakeRunner(int num_threads) {
    auto runner =
        CreateTorchModelRunner(weights_, {.num_threads = num_threads, .kv_cache_bytes = 4 << 20});
    EXPECT_TRUE(runner.ok()) << runner.status();
    return *std::move(runner);
  }

  std::shared_ptr<const SharedWeights> weights_;
};
INSTANTIATE_TEST_SUITE_P(Types, ProbesTest,
                         testing::Values(ModelDtype::kFloat32, ModelDtype::kBFloat16),
                         [](const auto& info) {
                           return info.param == ModelDtype::kFloat32 ? "Float32" : "BFloat16";
                         });

std::vector<int32_t> Tokens(int32_t count, int32_t start) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (start + 53 * i) % 300;
  return tokens;
}

// Prefix of 4; segments of 9, 80 and 3; suffix of 2; two generated tokens.
TestSequence FusedSequence() {
  TestSequence sequence{*SegmentLayout::FromPieces({.prefix_length = 4,
                                                    .segment_lengths = {9, 80, 3},
                                                    .separator_length = 1,
                                                    .suffix_length = 2}),
                        {},
                        {}};
  const int32_t length = sequence.layout.length() + 2;
  sequence.token_ids = Tokens(length, 11);
  sequence.slots.resize(length);
  std::iota(sequence.slots.begin(), sequence.slots.end(), 300);
  return sequence;
}

// Prefix, segments, everything after them; separators are nobody's where `has_gaps`.
KeyUnits UnitsOf(const TestSequence& sequence, bool has_gaps) {
  KeyUnits units;
  const auto append = [&](int32_t begin, int32_t end) {
    units.ranges.push_back({begin, end, units.num_units++});
  };
  append(0, 4);
  const int32_t length = static_cast<int32_t>(sequence.token_ids.size());
  for (const TokenRange& segment : sequence.layout.segments()) {
    append(segment.begin, has_gaps ? segment.end : segment.end + 1);
  }
  units.ranges.back().end = sequence.layout.original_length();
  append(sequence.layout.original_length(), length + 100);
  return units;
}

std::vector<int32_t> UpTo(int32_t count) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// All rows of the fused sequence, the last one probed and chosen from.
StepPlan ProbedPlan(const TestSequence& sequence, const KeyUnits& units, const ModelInfo& info,
                    const SamplingParams& sampling) {
  StepPlan plan;
  const int32_t length = static_cast<int32_t>(sequence.token_ids.size());
  const int32_t row = AppendRows(sequence, 0, length, plan) + length - 1;
  plan.choices = {GreedyChoice(row, sampling, true)};
  plan.probes = {{row, &units, UpTo(info.num_layers), UpTo(info.num_heads)}};
  return plan;
}

void ExpectSame(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

void ExpectSame(const AttentionProbeResult& a, const AttentionProbeResult& b) {
  ExpectSame(a.mean_mass, b.mean_mass);
  ExpectSame(a.mass, b.mass);
  ExpectSame(a.logits, b.logits);
}

TEST_P(ProbesTest, MeanMassIsTheMeanOverAllLayersAndHeads) {
  const auto runner = MakeRunner(2);
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  for (const bool has_gaps : {false, true}) {
    const KeyUnits units = UnitsOf(sequence, has_gaps);
    const auto result = runner->Run(ProbedPlan(sequence, units, runner->info(), sampling));
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->probes.size(), 1u);
    const AttentionProbeResult& probe = result->probes[0];
    const size_t num_units = static_cast<size_t>(units.num_units);
    const size_t num_rows =
        static_cast<size_t>(runner->info().num_layers * runner->info().num_heads);
    ASSERT_EQ(probe.mean_mass.size(), num_units);
    ASSERT_EQ(probe.mass.size(), num_rows * num_units);
    ASSERT_EQ(probe.logits.size(), num_rows * num_units);
    std::vector<double> mean(num_units, 0.0);
    for (size_t row = 0; row < num_rows; ++row) {
      double total = 0.0;
      for (size_t unit = 0; unit < num_units; ++unit) {
        const double mass = probe.mass[row * num_units + unit];
        EXPECT_GE(mass, 0.0);
        mean[unit] += mass / static_cast<double>(num_rows);
        total += mass;
      }
      if (has_gaps) {
        EXPECT_LT(total, 1.0);
      } else {
        EXPECT_NEAR(total, 1.0, 1e-5);
      }
    }
    for (size_t unit = 0; unit < num_units; ++unit) {
      EXPECT_NEAR(probe.mean_mass[unit], mean[unit], 1e-6);
    }
  }
}

// Layers 0 and 2 see six positions back, layer 1 all keys.
TEST(WindowedProbesTest, EachLayerCountsWhatItsOwnWindowShows) {
  const auto weights = LoadSharedWeights(
      {.model_directory = kHybrid, .dtype = ModelDtype::kFloat32, .num_threads = 2});
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto runner =
      CreateTorchModelRunner(*weights, {.num_threads = 2, .kv_cache_bytes = 4 << 20});
  ASSERT_TRUE(runner.ok()) << runner.status();
  const ModelInfo& info = (*runner)->info();
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  const KeyUnits units = UnitsOf(sequence, false);
  const auto result = (*runner)->Run(ProbedPlan(sequence, units, info, sampling));
  ASSERT_TRUE(result.ok()) << result.status();
  const AttentionProbeResult& probe = result->probes.at(0);
  const auto num_units = static_cast<size_t>(units.num_units);
  const auto num_heads = static_cast<size_t>(info.num_heads);
  ASSERT_EQ(info.layer_windows.size(), 3u);
  std::vector<double> mean(num_units, 0.0);
  for (size_t row = 0; row < 3 * num_heads; ++row) {
    const bool is_full = info.layer_windows[row / num_heads].is_full();
    double total = 0.0;
    for (size_t unit = 0; unit < num_units; ++unit) {
      const float mass = probe.mass[row * num_units + unit];
      total += mass;
      mean[unit] += mass / static_cast<double>(3 * num_heads);
    }
    EXPECT_NEAR(total, 1.0, 1e-5) << "row " << row;
    // The prefix stands further than six positions before the last row.
    const float prefix_mass = probe.mass[row * num_units];
    EXPECT_EQ(prefix_mass > 0.0f, is_full) << "row " << row;
    EXPECT_EQ(std::isnan(probe.logits[row * num_units]), !is_full) << "row " << row;
  }
  for (size_t unit = 0; unit < num_units; ++unit) {
    EXPECT_NEAR(probe.mean_mass[unit], mean[unit], 1e-6);
  }
}

TEST_P(ProbesTest, ChosenLayersAndHeadsAreThoseOfAll) {
  const auto runner = MakeRunner(2);
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  const KeyUnits units = UnitsOf(sequence, false);
  StepPlan plan = ProbedPlan(sequence, units, runner->info(), sampling);
  const auto all = runner->Run(plan);
  const std::vector<int32_t> layers = {1}, heads = {0, 2, 5};
  plan.probes[0].layers = layers;
  plan.probes[0].heads = heads;
  plan.probes.push_back({plan.probes[0].row, &units, {}, {}});
  plan.probes.push_back({plan.probes[0].row, &units, {0}, {}});  // no head: no values
  const auto some = runner->Run(plan);
  ASSERT_TRUE(all.ok() && some.ok());
  ASSERT_EQ(some->probes.size(), 3u);
  std::vector<float> mass, logits;
  for (const int32_t layer : layers) {
    for (const int32_t head : heads) {
      const int64_t begin = (layer * runner->info().num_heads + head) * units.num_units;
      for (int64_t i = begin; i < begin + units.num_units; ++i) {
        mass.push_back(all->probes[0].mass[i]);
        logits.push_back(all->probes[0].logits[i]);
      }
    }
  }
  ExpectSame(some->probes[0].mass, mass);
  ExpectSame(some->probes[0].logits, logits);
  for (const AttentionProbeResult& probe : some->probes) {
    ExpectSame(probe.mean_mass, all->probes[0].mean_mass);
  }
  EXPECT_TRUE(some->probes[1].mass.empty() && some->probes[1].logits.empty());
  EXPECT_TRUE(some->probes[2].mass.empty() && some->probes[2].logits.empty());
}

TEST_P(ProbesTest, AreTheSameBitsInEveryBatchAndChangeNoLogit) {
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  const KeyUnits units = UnitsOf(sequence, false);
  const int32_t length = static_cast<int32_t>(sequence.token_ids.size());
  const auto alone = MakeRunner(1);
  StepPlan plan = ProbedPlan(sequence, units, alone->info(), sampling);
  const auto expected = alone->Run(plan);
  ASSERT_TRUE(expected.ok()) << expected.status();
  plan.probes.clear();
  const auto plain = alone->Run(plan);
  ASSERT_TRUE(plain.ok() && plain->probes.empty());
  ExpectSame(plain->tokens[0].logits, expected->tokens[0].logits);

  // The last row alone, its sequence read before, between rows of another that are probed as well;
  // probes in descending order of rows.
  const auto runner = MakeRunner(3);
  StepPlan before;
  AppendRows(sequence, 0, length - 1, before);
  ASSERT_TRUE(runner->Run(before).ok());
  StepPlan step;
  const TestSequence other = CausalSequence(Tokens(70, 5), 0);
  AppendRows(other, 0, 40, step);
  const int32_t row = AppendRows(sequence, length - 1, length, step);
  AppendRows(other, 40, 70, step);
  step.choices = {GreedyChoice(row, sampling, true)};
  const KeyUnits whole = {1, {{0, 1000, 0}}};
  step.probes = {{row + 7, &whole, {}, {}},
                 {row, &units, UpTo(alone->info().num_layers), UpTo(alone->info().num_heads)},
                 {3, &whole, {}, {}}};
  const auto crowded = runner->Run(step);
  ASSERT_TRUE(crowded.ok()) << crowded.status();
  ExpectSame(crowded->probes[1], expected->probes[0]);
  ExpectSame(crowded->tokens[0].logits, expected->tokens[0].logits);
  for (const size_t i : {size_t{0}, size_t{2}}) {
    EXPECT_NEAR(crowded->probes[i].mean_mass[0], 1.0f, 1e-5f);
  }
}

TEST_P(ProbesTest, AStepWithoutChoicesHasProbesAllTheSame) {
  const auto runner = MakeRunner(2);
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  const KeyUnits units = UnitsOf(sequence, true);
  StepPlan plan = ProbedPlan(sequence, units, runner->info(), sampling);
  const auto expected = runner->Run(plan);
  plan.choices.clear();
  const auto result = runner->Run(plan);
  ASSERT_TRUE(expected.ok() && result.ok());
  ExpectSame(result->probes[0], expected->probes[0]);
}

TEST_P(ProbesTest, AProbeOutOfRangeIsInternal) {
  const auto runner = MakeRunner(1);
  const SamplingParams sampling;
  const TestSequence sequence = FusedSequence();
  const KeyUnits units = UnitsOf(sequence, true);
  const StepPlan good = ProbedPlan(sequence, units, runner->info(), sampling);
  ASSERT_TRUE(runner->Run(good).ok());
  const std::vector<void (*)(StepPlan&)> breaks = {
      [](StepPlan& plan) { plan.probes[0].row = -1; },
      [](StepPlan& plan) { plan.probes[0].row = plan.num_rows(); },
      [](StepPlan& plan) { plan.probes[0].units = nullptr; },
      [](StepPlan& plan) {
        plan.probes[0].layers = {0, 0};
      },
      [](StepPlan& plan) {
        plan.probes[0].layers = {1, 0};
      },
      [](StepPlan& plan) { plan.probes[0].layers = {99}; },
      [](StepPlan& plan) { plan.probes[0].heads = {-1}; },
      [](StepPlan& plan) { plan.probes[0].heads = {6}; },
      [](StepPlan& plan) { plan.choices[0].compared_rows = {plan.num_rows()}; },
      [](StepPlan& plan) { plan.choices[0].compared_rows = {-1}; }};
  for (size_t i = 0; i < breaks.size(); ++i) {
    StepPlan bad = good;
    breaks[i](bad);
    EXPECT_EQ(runner->Run(bad).status().code(), absl::StatusCode::kInternal) << "break " << i;
  }
  const std::vector<KeyUnits> bad_units = {{-1, {}},          {1, {{0, 4, 1}}},
                                           {1, {{0, 4, -1}}}, {2, {{0, 4, 0}, {3, 5, 1}}},
                                           {1, {{-1, 4, 0}}}, {1, {{4, 4, 0}}}};
  for (size_t i = 0; i < bad_units.size(); ++i) {
    StepPlan bad = good;
    bad.probes[0].units = &bad_units[i];
    EXPECT_EQ(runner->Run(bad).status().code(), absl::StatusCode::kInternal) << "units " << i;
  }
}

// Entropy of the mean minus mean of the entropies, in double.
double NaiveDivergence(const std::vector<std::vector<float>>& rows) {
  std::vector<double> mean(rows[0].size(), 0.0);
  double bits = 0.0;
  for (const std::vector<float>& row : rows) {
    double sum = 0.0;
    for (const float logit : row) sum += std::exp(double{logit});
    for (size_t i = 0; i < row.size(); ++i) {
      const double p = std::exp(double{row[i]}) / sum;
      mean[i] += p / static_cast<double>(rows.size());
      bits += p * std::log2(p) / static_cast<double>(rows.size());
    }
  }
  for (const double p : mean) bits -= p * std::log2(p);
  return bits;
}

// Choices of several kinds, one of which compares more rows than stand side by side.
TEST_P(ProbesTest, DisagreementIsThatOfTheComparedRowsAndChangesNoLogit) {
  const auto runner = MakeRunner(2);
  const SamplingParams sampling;
  StepPlan plan;
  AppendRows(CausalSequence(Tokens(150, 9), 0), 0, 150, plan);
  for (int32_t row = 0; row < 150; ++row) plan.choices.push_back(GreedyChoice(row, sampling, true));
  const auto rows = runner->Run(plan);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const std::vector<std::vector<int32_t>> compared = {{149, 3, 77}, {5}, {}, UpTo(120), {9, 9}};
  plan.choices.clear();
  for (const std::vector<int32_t>& of : compared) {
    plan.choices.push_back(GreedyChoice(149, sampling, true));
    plan.choices.back().compared_rows = of;
  }
  TokenChoice mean = plan.choices[0];
  mean.rule = CombineRule::kLogitMean;
  mean.rows = mean.compared_rows;
  plan.choices.push_back(mean);
  const auto result = runner->Run(plan);
  ASSERT_TRUE(result.ok()) << result.status();
  for (size_t i = 0; i < plan.choices.size(); ++i) {
    const std::vector<int32_t>& of = plan.choices[i].compared_rows;
    std::vector<std::vector<float>> logits;
    for (const int32_t row : of) logits.push_back(rows->tokens[row].logits);
    const double expected = of.empty() ? 0.0 : NaiveDivergence(logits);
    EXPECT_NEAR(result->tokens[i].disagreement, expected, 1e-5) << "choice " << i;
    if (i < compared.size()) ExpectSame(result->tokens[i].logits, rows->tokens[149].logits);
    StepPlan alone = plan;
    alone.choices = {plan.choices[i]};
    const auto again = runner->Run(alone);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->tokens[0].disagreement, result->tokens[i].disagreement);
  }
  EXPECT_GT(result->tokens[0].disagreement, 0.01f);
}

}  // namespace
}  // namespace chorus
