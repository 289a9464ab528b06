// Attention probes of the device kernels on the test's device, against the reference.
#include <algorithm>
#include <cmath>
#include <deque>
#include <string>

#include "gtest/gtest.h"

#include "core/kernels/attention_statistics.h"
#include "core/kernels/probe_plan.h"
#include "tests/kernels/device_attention_run.h"

namespace chorus::device {
namespace {

class DeviceProbesTest : public test::DeviceTest {};

constexpr int32_t kMaxKeys = 300;
constexpr int32_t kNumLayers = 3;

const AttentionRun& RunOf(const AttentionPlan& plan, int32_t row) {
  return *std::find_if(plan.runs.begin(), plan.runs.end(), [row](const AttentionRun& run) {
    return row >= run.row_begin && row < run.row_end;
  });
}

// Up to two probes of every row; layers and heads that they ask for, or none.
struct Probes {
  std::deque<KeyUnits> units;
  std::deque<std::vector<int32_t>> chosen;
  std::vector<RowProbe> probes;
};

Probes RandomProbes(const AttentionPlan& plan, int32_t num_heads, uint32_t seed) {
  std::mt19937 random(seed);
  const auto some = [&](int32_t size) {
    std::vector<int32_t> chosen;
    for (int32_t i = 0; i < size; ++i) {
      if (random() % 3 != 0) chosen.push_back(i);
    }
    return chosen;
  };
  Probes out;
  for (int32_t row = plan.runs.back().row_end - 1; row >= 0; --row) {
    for (uint32_t i = random() % 3; i > 0; --i) {
      RowProbe probe{row, &out.units.emplace_back(test::RandomUnits(kMaxKeys, random)), {}, {}};
      if (random() % 3 != 0) {
        probe.layers = out.chosen.emplace_back(some(kNumLayers));
        probe.heads = out.chosen.emplace_back(some(num_heads));
      }
      out.probes.push_back(probe);
    }
  }
  return out;
}

struct Found {
  std::vector<float> mass_sums, mean_mass, mass, mean_logits;
};

// Reduces the logits that attention gave for every layer (the same for all of them here).
class ProbesOnDevice {
 public:
  ProbesOnDevice(const ProbePlan& plan, const std::vector<SegmentScaling>& scalings,
                 int32_t num_heads)
      : plan_(plan), scalings_(scalings), num_heads_(num_heads) {
    const float nan = std::nanf("");
    found_.mass_sums.assign(int64_t{plan.num_units} * num_heads, nan);
    found_.mean_mass.assign(plan.num_units, nan);
    found_.mass.assign(plan.num_chosen, nan);
    found_.mean_logits.assign(plan.num_chosen, nan);
  }

  void Reduce(const std::vector<float>& logits, int32_t layer) {
    Run(logits, [layer](DeviceKernels& kernels, const DeviceProbes& probes) {
      return kernels.ReduceProbes(probes, layer);
    });
  }
  void Mean() {
    Run({}, [](DeviceKernels& kernels, const DeviceProbes& probes) {
      return kernels.MeanProbes(probes);
    });
  }

  const Found& found() const { return found_; }

 private:
  template <class Start>
  void Run(const std::vector<float>& logits, const Start& start) {
    ASSERT_EQ(test::RunOnDevice(Arrays(logits), /*seed=*/1,
                                [&](DeviceKernels& kernels, const test::Addresses& at) {
                                  return start(kernels, Args(logits, at));
                                }),
              absl::OkStatus());
  }

  DeviceProbes Args(const std::vector<float>& logits, const test::Addresses& at) {
    return {.tasks = at(plan_.tasks.data()),
            .num_probes = static_cast<int32_t>(plan_.tasks.size()),
            .pieces = at(plan_.pieces.data()),
            .piece_begins = at(plan_.piece_begins.data()),
            .layer_order = at(plan_.layer_order.data()),
            .head_order = at(plan_.head_order.data()),
            .scalings = at(scalings_.data()),
            .num_layers = kNumLayers,
            .num_heads = num_heads_,
            .logits = at(logits.data()),
            .mass_sums = at(found_.mass_sums.data()),
            .mean_mass = at(found_.mean_mass.data()),
            .mass = at(found_.mass.data()),
            .mean_logits = at(found_.mean_logits.data())};
  }
  std::vector<HostArray> Arrays(const std::vector<float>& logits) {
    return {ReadOnly(plan_.tasks),
            ReadOnly(plan_.pieces),
            ReadOnly(plan_.piece_begins),
            ReadOnly(plan_.layer_order),
            ReadOnly(plan_.head_order),
            ReadOnly(scalings_),
            ReadOnly(logits),
            Writable(found_.mass_sums),
            Writable(found_.mean_mass),
            Writable(found_.mass),
            Writable(found_.mean_logits)};
  }

  const ProbePlan& plan_;
  const std::vector<SegmentScaling>& scalings_;
  const int32_t num_heads_;
  Found found_;
};

// A logit is a sum of head_dim products of |q| <= 3 and |k| <= 1 over sqrt(head_dim), so it is off
// by eps * head_dim * 3 sqrt(head_dim); a mean adds an eps of its size for each of the additions
// of a lane (num_keys / 32) and of a warp, and some for factors.
float LogitTolerance(const AttentionShape& shape) {
  const auto head_dim = static_cast<float>(shape.head_dim);
  return test::kEpsilon * 3.0f * std::sqrt(head_dim) * (head_dim + kMaxKeys / 32 + 16);
}

// Weights are exponentials of logits over T >= 0.9, times S <= 1.3 for the sum: relatively off by
// four such errors (of the key and of the sum, for both softmaxes), and by an eps for each addition
// and some for the exponentials.
float MassTolerance(const AttentionShape& shape) {
  return 4.0f * 1.3f / 0.9f * LogitTolerance(shape) +
         test::kEpsilon * static_cast<float>(kMaxKeys + 64);
}

// Of layers that are all the same: sums are three times one's, all in this order.
template <class Element>
void ExpectFound(DeviceBatch<Element>& batch, const AttentionWindow& window, const Probes& probes,
                 const ProbePlan& plan, const Found& found) {
  const AttentionShape& shape = batch.shape;
  for (size_t i = 0; i < probes.probes.size(); ++i) {
    const RowProbe& probe = probes.probes[i];
    SCOPED_TRACE(testing::Message() << "probe " << i << " of row " << probe.row);
    const ReferenceStatistics expected =
        AttentionStatisticsReference(batch.plan, RunOf(batch.plan, probe.row), probe.row,
                                     *probe.units, batch.ReferenceArgs(window));
    const ProbeTask& task = plan.tasks[i];
    const int32_t num_units = probe.units->num_units;
    for (int32_t unit = 0; unit < num_units; ++unit) {
      double mean = 0.0;
      for (int32_t head = 0; head < shape.num_heads; ++head) {
        mean += expected.mass[head * num_units + unit] / shape.num_heads;
      }
      ASSERT_NEAR(found.mean_mass[task.unit_begin + unit], mean, MassTolerance(shape));
    }
    size_t at = task.chosen_begin;
    for (size_t layer = 0; layer < probe.layers.size(); ++layer) {
      for (const int32_t head : probe.heads) {
        for (int32_t unit = 0; unit < num_units; ++unit, ++at) {
          const int32_t of = head * num_units + unit;
          ASSERT_NEAR(found.mass[at], expected.mass[of], MassTolerance(shape));
          if (std::isnan(expected.mean_logits[of])) {
            ASSERT_TRUE(std::isnan(found.mean_logits[at]));
          } else {
            ASSERT_NEAR(found.mean_logits[at], expected.mean_logits[of], LogitTolerance(shape));
          }
        }
      }
    }
  }
}

Found Reduce(const ProbePlan& plan, const std::vector<SegmentScaling>& scalings, int32_t num_heads,
             const std::vector<float>& logits) {
  ProbesOnDevice host(plan, scalings, num_heads);
  for (int32_t layer = 0; layer < kNumLayers; ++layer) host.Reduce(logits, layer);
  host.Mean();
  return host.found();
}

ProbedModel ModelOf(int32_t num_heads, int32_t num_rows) {
  return {kNumLayers, num_heads, num_rows};
}

TEST_F(DeviceProbesTest, OfThePlainKernelEqualTheReferenceAndChangeNoOutput) {
  const AttentionShape shapes[] = {ShapeOfHeads(3, 1, 48), ShapeOfHeads(4, 2, 16)};
  for (uint32_t seed = 1; seed <= 2 * std::size(test::kWindows); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const AttentionShape& shape = shapes[seed % 2];
    const AttentionWindow& window = test::kWindows[seed / 2 % std::size(test::kWindows)];
    DeviceBatch<BFloat16> batch = RandomDeviceBatch<BFloat16>(shape, 4, kMaxKeys, seed);
    const Probes probes = RandomProbes(batch.plan, shape.num_heads, seed);
    const ProbePlan plan =
        PlanProbes(batch.plan, probes.probes, window, ModelOf(shape.num_heads, batch.num_rows()));
    const TilePlan tiles = PlanTiles(batch.plan, window, kPlainTileShape);
    AttentionOnDevice<BFloat16> plain(batch), probed(batch);
    plain.RunPlain(tiles);
    probed.GiveLogits(plan);
    probed.RunPlain(tiles);
    EXPECT_TRUE(SameBits(probed.out(), plain.out()));
    EXPECT_TRUE(SameBits(probed.log_sum_exp(), plain.log_sum_exp()));
    ExpectFound(batch, window, probes, plan,
                Reduce(plan, batch.plan.scalings, shape.num_heads, probed.logits()));
  }
}

// As a step does it: fused rows' logits come from their attention, own rows' from a pass of their
// own.
template <class Element, int kHeadDim>
void ExpectFastKernelsAreProbed(int32_t num_heads, int32_t num_kv_heads, uint32_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  const AttentionShape shape = ShapeOfHeads(num_heads, num_kv_heads, kHeadDim);
  DeviceBatch<Element> batch = RandomDeviceBatch<Element>(shape, 6, kMaxKeys, seed);
  const Probes probes = RandomProbes(batch.plan, num_heads, seed);
  const ProbePlan plan =
      PlanProbes(batch.plan, probes.probes, {}, ModelOf(num_heads, batch.num_rows()));
  AttentionOnDevice<Element> plain(batch), probed(batch, seed);
  plain.RunFused(batch.plan);
  probed.GiveLogits(plan);
  probed.RunFused(batch.plan);
  probed.RunPlain(PlanProbedOwnRows(batch.plan, probes.probes, {}, kPlainTileShape),
                  /*has_outputs=*/false);
  EXPECT_TRUE(SameBits(probed.out(), plain.out()));
  EXPECT_TRUE(SameBits(probed.log_sum_exp(), plain.log_sum_exp()));
  ExpectFound(batch, {}, probes, plan,
              Reduce(plan, batch.plan.scalings, num_heads, probed.logits()));
}

TEST_F(DeviceProbesTest, OfTheFastKernelsEqualTheReferenceAndChangeNoOutput) {
  ExpectFastKernelsAreProbed<BFloat16, 64>(6, 2, 1);
  ExpectFastKernelsAreProbed<Float16, 64>(9, 3, 2);
  ExpectFastKernelsAreProbed<BFloat16, 128>(16, 1, 3);
  ExpectFastKernelsAreProbed<Float16, 128>(2, 2, 4);
}

TEST_F(DeviceProbesTest, AreTheSameBitForBitInEveryBatch) {
  std::mt19937 random(9);
  const AttentionShape shape = ShapeOfHeads(6, 2, 64);
  const DeviceBatch<BFloat16> batch = RandomDeviceBatch<BFloat16>(shape, 5, kMaxKeys, 17);
  const Probes probes = RandomProbes(batch.plan, shape.num_heads, 3);
  Found first;
  for (int round = 0; round < 2; ++round) {
    const AttentionPlan plan = round == 0 ? batch.plan : test::SplitRuns(batch.plan, random);
    const ProbePlan probe_plan =
        PlanProbes(plan, probes.probes, {}, ModelOf(shape.num_heads, batch.num_rows()));
    AttentionOnDevice<BFloat16> host(batch, round + 1);
    host.GiveLogits(probe_plan);
    host.RunFused(plan);
    host.RunPlain(PlanProbedOwnRows(plan, probes.probes, {}, kPlainTileShape), false);
    const Found found = Reduce(probe_plan, plan.scalings, shape.num_heads, host.logits());
    if (round == 0) first = found;
    EXPECT_TRUE(SameBits(found.mean_mass, first.mean_mass));
    EXPECT_TRUE(SameBits(found.mass, first.mass));
    EXPECT_TRUE(SameBits(found.mean_logits, first.mean_logits));
  }
}

// Layers that differ: each adds its own, and what was asked for stands at its layer.
TEST_F(DeviceProbesTest, LayersAddUpInTheMeanAndStandByThemselvesWhereAskedFor) {
  AttentionPlan plan;
  plan.intervals = {{0, 3, false}};
  plan.runs = {{.row_end = 1, .query_begin = 2, .interval_end = 1}};
  const KeyUnits units = {2, {{0, 1, 1}, {1, 3, 0}}};
  const std::vector<int32_t> layers = {0, 2}, heads = {1};
  const RowProbe probe = {0, &units, layers, heads};
  const ProbePlan probes = PlanProbes(plan, {&probe, 1}, {}, ModelOf(/*num_heads=*/2, 1));
  ProbesOnDevice host(probes, plan.scalings, 2);
  const float ln2 = std::log(2.0f);
  // Weights of head 0: a third each. Of head 1: 1/4, 1/4, 1/2; then 1/3 each; 1/2, 1/4, 1/4.
  host.Reduce({0, 0, 0, 0, 0, ln2}, 0);
  host.Reduce({0, 0, 0, 1, 1, 1}, 1);
  host.Reduce({0, 0, 0, 5 + ln2, 5, 5}, 2);
  host.Mean();
  const float eps = 64 * test::kEpsilon;
  EXPECT_NEAR(host.found().mean_mass[0], (3 * 2.0 / 3 + 3.0 / 4 + 2.0 / 3 + 2.0 / 4) / 6, eps);
  EXPECT_NEAR(host.found().mean_mass[1], (3 * 1.0 / 3 + 1.0 / 4 + 1.0 / 3 + 1.0 / 2) / 6, eps);
  ASSERT_EQ(host.found().mass.size(), 4u);
  EXPECT_NEAR(host.found().mass[0], 0.75f, eps);
  EXPECT_NEAR(host.found().mass[1], 0.25f, eps);
  EXPECT_NEAR(host.found().mass[2], 0.5f, eps);
  EXPECT_NEAR(host.found().mass[3], 0.5f, eps);
  EXPECT_NEAR(host.found().mean_logits[0], ln2 / 2, eps);
  EXPECT_NEAR(host.found().mean_logits[1], 0.0f, eps);
  EXPECT_NEAR(host.found().mean_logits[2], 5.0f, 5 * eps);
  EXPECT_NEAR(host.found().mean_logits[3], 5.0f + ln2, 6 * eps);
}

}  // namespace
}  // namespace chorus::device
