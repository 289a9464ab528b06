#include "core/kernels/attention_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "gtest/gtest.h"

#include "core/kernels/segment_attention.h"
#include "tests/kernels/kernel_test_support.h"

namespace chorus {
namespace {

using test::HeadCase;
using test::KernelTargets;
using test::KvStore;
using test::kWindows;
using test::RandomFloats;
using test::RandomUnits;
using test::ScopedKernelTarget;
using test::ShapeOf;

// A row that is looked at, and its run.
struct Probe {
  size_t run = 0;
  int32_t row = 0;
  KeyUnits units;
};

struct Batch {
  AttentionPlan plan;
  std::vector<Probe> probes;  // ascending by row
  int32_t num_rows = 0;
  std::vector<float> q;
  std::unique_ptr<KvStore> kv;
};

// A run of 1..6 rows, and up to two probes of each.
void AppendRun(int32_t max_keys, std::vector<int32_t>& free_slots, std::mt19937& random,
               Batch& batch) {
  const size_t table_begin = batch.plan.slot_table.size();
  const AttentionRun run = test::AppendRun(max_keys, free_slots, random, batch.plan);
  batch.num_rows = run.row_end;
  for (size_t i = table_begin; i < batch.plan.slot_table.size(); ++i) {
    batch.kv->FillSlot(batch.plan.slot_table[i], random);
  }
  const int32_t num_keys = run.query_begin + (run.row_end - run.row_begin);
  for (int32_t row = run.row_begin; row < run.row_end; ++row) {
    for (uint32_t i = random() % 3; i > 0; --i) {
      batch.probes.push_back({batch.plan.runs.size() - 1, row, RandomUnits(num_keys, random)});
    }
  }
}

Batch RandomBatch(const HeadCase& test, int32_t num_runs, int32_t max_keys, std::mt19937& random) {
  Batch batch;
  std::vector<int32_t> free_slots(num_runs * max_keys);
  std::iota(free_slots.begin(), free_slots.end(), 0);
  std::shuffle(free_slots.begin(), free_slots.end(), random);
  batch.kv = std::make_unique<KvStore>(test.type, num_runs * max_keys, ShapeOf(test));
  batch.plan.scalings = {{0.9f, 0.8f, -0.5f}, {1.3f, 1.1f, 0.7f}};
  for (int32_t i = 0; i < num_runs; ++i) AppendRun(max_keys, free_slots, random, batch);
  batch.q = RandomFloats(int64_t{batch.num_rows} * test.num_heads * test.head_dim, random, 3.0f);
  return batch;
}

AttentionArgs ArgsFor(const HeadCase& test, const Batch& batch, std::vector<float>& out) {
  out.assign(batch.q.size(), std::nanf(""));
  AttentionArgs args;
  args.shape = ShapeOf(test);
  args.q = batch.q.data();
  args.kv = batch.kv->view();
  args.out = out.data();
  return args;
}

std::vector<AttentionStatistics> StatisticsFor(const Batch& batch, int32_t num_heads,
                                               const AttentionWindow& window = {}) {
  std::vector<AttentionStatistics> statistics;
  for (const Probe& probe : batch.probes) {
    statistics.emplace_back(batch.plan, batch.plan.runs[probe.run], probe.row, probe.units,
                            num_heads, window);
    statistics.back().SetWantsLogits(true);
  }
  return statistics;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A logit is a chain of head_dim multiply-adds of |q| <= 3 and |k| <= 1 over sqrt(head_dim), so it
// is off by eps * head_dim * 3 sqrt(head_dim); up to 64 of them, each at most 3 sqrt(head_dim), are
// added in float32, and T comes in and out.
float LogitTolerance(int32_t head_dim) {
  return test::kEpsilon * 3.0f * std::sqrt(static_cast<float>(head_dim)) *
         static_cast<float>(head_dim + 64 + 4);
}

// Weights are exponentials of logits over T >= 0.9, times S <= 1.3 for the sum: relatively off by
// four such errors (of the key and of the sum, for both softmaxes), and by an eps for each of up to
// num_keys additions and 16 for the exponentials.
float MassTolerance(int32_t head_dim, int32_t num_keys) {
  return 4.0f * 1.3f / 0.9f * LogitTolerance(head_dim) +
         test::kEpsilon * static_cast<float>(num_keys + 64);
}

// [num_heads, num_units]
std::vector<float> AllMass(const AttentionStatistics& statistics, int32_t num_heads) {
  std::vector<float> all;
  for (int32_t head = 0; head < num_heads; ++head) {
    for (const float value : statistics.mass(head)) all.push_back(value);
  }
  return all;
}

std::vector<float> AllLogits(const AttentionStatistics& statistics, int32_t num_heads) {
  std::vector<float> all;
  for (int32_t head = 0; head < num_heads; ++head) {
    for (const float value : statistics.mean_logits(head)) all.push_back(value);
  }
  return all;
}

void ExpectNear(const AttentionStatistics& actual, const ReferenceStatistics& expected,
                const HeadCase& test, int32_t num_keys) {
  const std::vector<float> mass = AllMass(actual, test.num_heads);
  const std::vector<float> logits = AllLogits(actual, test.num_heads);
  ASSERT_EQ(mass.size(), expected.mass.size());
  ASSERT_EQ(logits.size(), expected.mean_logits.size());
  for (size_t i = 0; i < expected.mass.size(); ++i) {
    ASSERT_NEAR(mass[i], expected.mass[i], MassTolerance(test.head_dim, num_keys))
        << "head x unit " << i;
    if (std::isnan(expected.mean_logits[i])) {
      ASSERT_TRUE(std::isnan(logits[i])) << "head x unit " << i;
      ASSERT_EQ(mass[i], 0.0f);
    } else {
      ASSERT_NEAR(logits[i], expected.mean_logits[i], LogitTolerance(test.head_dim))
          << "head x unit " << i;
    }
  }
}

class AttentionStatisticsTest : public testing::TestWithParam<HeadCase> {};

TEST_P(AttentionStatisticsTest, EqualTheReferenceOnFuzzedBatchesOnEveryTarget) {
  const HeadCase& test = GetParam();
  ThreadPool pool(2);
  for (uint32_t seed = 1; seed <= std::size(kWindows); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    constexpr int32_t kMaxKeys = 400;
    const Batch batch = RandomBatch(test, 6, kMaxKeys, random);
    std::vector<float> out;
    AttentionArgs args = ArgsFor(test, batch, out);
    args.window = kWindows[seed - 1];
    for (int64_t target : KernelTargets()) {
      SCOPED_TRACE(test::KernelTargetName(target));
      const ScopedKernelTarget scoped(target);
      std::vector<AttentionStatistics> statistics =
          StatisticsFor(batch, test.num_heads, args.window);
      args.statistics = statistics;
      test::RunAttentionCpu(batch.plan, args, pool);
      for (size_t i = 0; i < batch.probes.size(); ++i) {
        const Probe& probe = batch.probes[i];
        SCOPED_TRACE("row " + std::to_string(probe.row));
        ExpectNear(statistics[i],
                   AttentionStatisticsReference(batch.plan, batch.plan.runs[probe.run], probe.row,
                                                probe.units, args),
                   test, kMaxKeys);
      }
    }
  }
}

// The plan and the probes with every run cut into single rows, in reverse order; rows keep their
// numbers.
Batch SingleRows(const Batch& batch) {
  Batch single;
  single.plan = batch.plan;
  single.plan.runs.clear();
  single.probes = batch.probes;
  for (size_t i = batch.plan.runs.size(); i-- > 0;) {
    for (int32_t row = batch.plan.runs[i].row_begin; row < batch.plan.runs[i].row_end; ++row) {
      for (Probe& probe : single.probes) {
        if (probe.row == row) probe.run = single.plan.runs.size();
      }
      AttentionRun run = batch.plan.runs[i];
      run.query_begin += row - run.row_begin;
      run.position_begin += row - run.row_begin;
      run.row_begin = row;
      run.row_end = row + 1;
      single.plan.runs.push_back(run);
    }
  }
  return single;
}

TEST_P(AttentionStatisticsTest, AreTheSameBitForBitInEveryBatchAndChangeNoOutput) {
  const HeadCase& test = GetParam();
  std::mt19937 random(17);
  // Long enough for several chunks of 1,024 keys, which threads share.
  const Batch batch = RandomBatch(test, 5, 3000, random);
  const Batch single = SingleRows(batch);
  size_t window_index = 0;  // one after the other: all of them with each target costs too much
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    std::vector<float> plain, out;
    ThreadPool one(1);
    const AttentionWindow window = kWindows[window_index++ % std::size(kWindows)];
    AttentionArgs plain_args = ArgsFor(test, batch, plain);
    plain_args.window = window;
    test::RunAttentionCpu(batch.plan, plain_args, one);
    std::vector<AttentionStatistics> first;
    for (const int num_threads : {1, 2, 4}) {
      for (const Batch* form : {&batch, &single}) {
        ThreadPool pool(num_threads);
        AttentionArgs args = ArgsFor(test, batch, out);
        args.window = window;
        std::vector<AttentionStatistics> statistics = StatisticsFor(*form, test.num_heads, window);
        args.statistics = statistics;
        test::RunAttentionCpu(form->plan, args, pool);
        ASSERT_TRUE(SameBits(out, plain));
        if (first.empty()) first = statistics;
        for (size_t i = 0; i < statistics.size(); ++i) {
          ASSERT_TRUE(
              SameBits(AllMass(statistics[i], test.num_heads), AllMass(first[i], test.num_heads)));
          ASSERT_TRUE(SameBits(AllLogits(statistics[i], test.num_heads),
                               AllLogits(first[i], test.num_heads)));
        }
      }
    }
    ASSERT_FALSE(first.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Heads, AttentionStatisticsTest,
    testing::Values(HeadCase{4, 4, 16, KvType::kFloat32}, HeadCase{9, 3, 64, KvType::kFloat32},
                    HeadCase{9, 3, 64, KvType::kBFloat16}, HeadCase{24, 8, 128, KvType::kBFloat16},
                    HeadCase{4, 1, 32, KvType::kBFloat16}, HeadCase{2, 1, 10, KvType::kBFloat16},
                    HeadCase{70, 1, 16, KvType::kFloat32}),
    test::HeadCaseName);

const HeadCase kSmall = {6, 2, 32, KvType::kFloat32};

// One row of query index `query` over keys in slots 0, 1, ...
Batch OneRow(std::vector<KeyInterval> intervals, int32_t query, KeyUnits units) {
  std::mt19937 random(3);
  Batch batch;
  batch.num_rows = 1;
  batch.kv = std::make_unique<KvStore>(kSmall.type, query + 1, ShapeOf(kSmall));
  for (int32_t slot = 0; slot <= query; ++slot) {
    batch.kv->FillSlot(slot, random);
    batch.plan.slot_table.push_back(slot);
  }
  AttentionRun run;
  run.row_end = 1;
  run.query_begin = query;
  run.interval_end = static_cast<int32_t>(intervals.size());
  batch.plan.intervals = std::move(intervals);
  batch.plan.runs = {run};
  batch.probes = {{0, 0, std::move(units)}};
  batch.q = RandomFloats(int64_t{kSmall.num_heads} * kSmall.head_dim, random);
  return batch;
}

std::vector<AttentionStatistics> Collect(const Batch& batch) {
  std::vector<float> out;
  std::vector<AttentionStatistics> statistics = StatisticsFor(batch, kSmall.num_heads);
  AttentionArgs args = ArgsFor(kSmall, batch, out);
  args.statistics = statistics;
  ThreadPool pool(2);
  test::RunAttentionCpu(batch.plan, args, pool);
  return statistics;
}

TEST(AttentionStatisticsEdgeTest, ARowWithoutKeysHasNoMassAndNoLogit) {
  const KeyUnits units = {2, {{0, 3, 1}, {3, 8, 0}}};
  // No interval at all; an interval that begins after the query.
  for (const std::vector<KeyInterval>& intervals :
       {std::vector<KeyInterval>{}, std::vector<KeyInterval>{{5, 8, false}}}) {
    const std::vector<AttentionStatistics> statistics = Collect(OneRow(intervals, 4, units));
    for (float mass : AllMass(statistics[0], kSmall.num_heads)) EXPECT_EQ(mass, 0.0f);
    for (float logit : AllLogits(statistics[0], kSmall.num_heads)) EXPECT_TRUE(std::isnan(logit));
  }
}

TEST(AttentionStatisticsEdgeTest, MassOfUnitsThatHoldAllKeysIsOne) {
  const KeyUnits units = {3, {{0, 40, 2}, {40, 41, 0}, {41, 300, 2}}};
  const std::vector<AttentionStatistics> statistics =
      Collect(OneRow({{0, 90, false}, {100, 250, true}}, 249, units));
  for (int32_t head = 0; head < kSmall.num_heads; ++head) {
    const std::span<const float> mass = statistics[0].mass(head);
    EXPECT_NEAR(mass[0] + mass[1] + mass[2], 1.0f, 64 * test::kEpsilon);
    EXPECT_EQ(mass[1], 0.0f);  // a unit without keys
    EXPECT_TRUE(std::isnan(statistics[0].mean_logits(head)[1]));
  }
}

TEST(AttentionStatisticsEdgeTest, MassSumIsOverAllPasses) {
  const Batch batch = OneRow({{0, 100, false}}, 99, {2, {{0, 70, 0}, {70, 100, 1}}});
  std::vector<AttentionStatistics> statistics = StatisticsFor(batch, kSmall.num_heads);
  std::vector<float> out;
  AttentionArgs args = ArgsFor(kSmall, batch, out);
  args.statistics = statistics;
  ThreadPool pool(2);
  for (int pass = 1; pass <= 3; ++pass) {
    test::RunAttentionCpu(batch.plan, args, pool);
    for (int32_t head = 0; head < kSmall.num_heads; ++head) {
      for (size_t unit = 0; unit < 2; ++unit) {
        EXPECT_EQ(statistics[0].mass_sum(head)[unit],
                  pass * double{statistics[0].mass(head)[unit]});
      }
    }
  }
}

TEST(AttentionStatisticsEdgeTest, HugeLogitsDoNotOverflow) {
  Batch batch = OneRow({{0, 200, false}}, 199, {2, {{0, 100, 0}, {100, 200, 1}}});
  for (float& value : batch.q) value *= 1e4f;
  const std::vector<AttentionStatistics> statistics = Collect(batch);
  for (float mass : AllMass(statistics[0], kSmall.num_heads)) {
    EXPECT_GE(mass, 0.0f);
    EXPECT_LE(mass, 1.0f + 64 * test::kEpsilon);
  }
}

}  // namespace
}  // namespace chorus
