#include "core/kernels/segment_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>

#include "gtest/gtest.h"

#include "core/segment/row_intervals.h"
#include "core/segment/segment_layout.h"
#include "tests/kernels/kernel_test_support.h"

namespace chorus {
namespace {

using test::HeadCase;
using test::KernelTargets;
using test::KvStore;
using test::RandomFloats;
using test::ScopedKernelTarget;
using test::ShapeOf;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A step over a few sequences with random layouts, whose tokens lie in scattered slots.
struct Batch {
  AttentionPlan plan;
  int32_t num_rows = 0;
  std::vector<float> q;
  std::unique_ptr<KvStore> kv;
  AttentionWindow window;
};

SegmentLayout RandomLayout(std::mt19937& random, int32_t max_segment_length) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = static_cast<int32_t>(random() % 3) * static_cast<int32_t>(random() % 40);
  for (uint32_t i = 0, n = random() % 5; i < n; ++i) {
    pieces.segment_lengths.push_back(1 + static_cast<int32_t>(random() % max_segment_length));
  }
  pieces.separator_length = static_cast<int32_t>(random() % 3);
  pieces.separator_policy =
      random() % 2 == 0 ? SeparatorPolicy::kIsolated : SeparatorPolicy::kAttached;
  pieces.suffix_length = 1 + static_cast<int32_t>(random() % 5);
  return SegmentLayout::FromPieces(pieces).value();
}

// Appends a sequence's rows from `first_row` on (the ones before it are cached already).
void AppendSequence(const SegmentLayout& layout, int32_t length, int32_t first_row, int32_t scaling,
                    const std::vector<int32_t>& slots, Batch& batch) {
  AttentionPlan& plan = batch.plan;
  const RowIntervals intervals = RowIntervals::FromLayout(layout, length, scaling >= 0);
  const RowIntervals windowed = intervals.CutAtPositions(layout);
  const int32_t table_begin = static_cast<int32_t>(plan.slot_table.size());
  plan.slot_table.insert(plan.slot_table.end(), slots.begin(), slots.end());
  for (const RowIntervals::Run& run : intervals.runs()) {
    const int32_t begin = std::max(run.rows.begin, first_row);
    if (begin >= run.rows.end) continue;
    AttentionRun out;
    out.row_begin = batch.num_rows;
    out.row_end = batch.num_rows += run.rows.end - begin;
    out.query_begin = begin;
    out.table_begin = table_begin;
    out.interval_begin = static_cast<int32_t>(plan.intervals.size());
    plan.intervals.insert(plan.intervals.end(), run.keys.begin(), run.keys.end());
    out.interval_end = out.windowed_begin = static_cast<int32_t>(plan.intervals.size());
    const std::vector<KeyInterval>& windowed_keys = windowed.RunOf(begin).keys;
    plan.intervals.insert(plan.intervals.end(), windowed_keys.begin(), windowed_keys.end());
    out.windowed_end = static_cast<int32_t>(plan.intervals.size());
    out.position_begin = layout.PositionOf(begin);
    const bool has_segments = std::any_of(run.keys.begin(), run.keys.end(),
                                          [](const KeyInterval& keys) { return keys.is_segment; });
    out.scaling = has_segments ? scaling : -1;
    plan.runs.push_back(out);
  }
}

Batch RandomBatch(const HeadCase& test, int num_sequences, int32_t max_segment_length,
                  std::mt19937& random) {
  const AttentionShape shape = ShapeOf(test);
  Batch batch;
  std::vector<int32_t> free_slots(num_sequences * (5 * (max_segment_length + 2) + 120));
  std::iota(free_slots.begin(), free_slots.end(), 0);
  std::shuffle(free_slots.begin(), free_slots.end(), random);
  batch.kv = std::make_unique<KvStore>(test.type, static_cast<int32_t>(free_slots.size()), shape);
  batch.plan.scalings = {{0.9f, 0.8f, -0.5f}, {1.3f, 1.1f, 0.7f}};
  for (int i = 0; i < num_sequences; ++i) {
    const SegmentLayout layout = RandomLayout(random, max_segment_length);
    const int32_t length = layout.length() + static_cast<int32_t>(random() % 4);
    const int32_t first_row =
        random() % 3 == 0 ? length - 1 : static_cast<int32_t>(random() % length);
    const int32_t scaling = static_cast<int32_t>(random() % 3) - 1;
    std::vector<int32_t> slots(free_slots.end() - length, free_slots.end());
    free_slots.resize(free_slots.size() - length);
    for (int32_t slot : slots) batch.kv->FillSlot(slot, random);
    AppendSequence(layout, length, first_row, scaling, slots, batch);
  }
  batch.q = RandomFloats(int64_t{batch.num_rows} * test.num_heads * test.head_dim, random, 3.0f);
  return batch;
}

struct Result {
  std::vector<float> out, log_sum_exp;
};

AttentionArgs ArgsFor(const HeadCase& test, const Batch& batch, Result& result) {
  result.out.assign(batch.q.size(), std::nanf(""));
  result.log_sum_exp.assign(int64_t{batch.num_rows} * test.num_heads, std::nanf(""));
  AttentionArgs args;
  args.shape = ShapeOf(test);
  args.q = batch.q.data();
  args.kv = batch.kv->view();
  args.out = result.out.data();
  args.log_sum_exp = result.log_sum_exp.data();
  args.window = batch.window;
  return args;
}

Result RunCpu(const HeadCase& test, const Batch& batch, const AttentionPlan& plan,
              ThreadPool& pool) {
  Result result;
  test::RunAttentionCpu(plan, ArgsFor(test, batch, result), pool);
  return result;
}

Result RunReference(const HeadCase& test, const Batch& batch) {
  Result result;
  SegmentAttentionReference(batch.plan, ArgsFor(test, batch, result));
  return result;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Logits are chains of head_dim multiply-adds of |q| <= 3, |k| <= 1, scaled by 1 / sqrt(head_dim):
// off by at most 2 eps * head_dim * 3 sqrt(head_dim), and twice that for T, S up to 1.3. Weights
// are then off by that much relatively (plus 8 eps of exp), and sums of n keys by n eps; |v| <= 1.
float ToleranceFor(int32_t head_dim, int32_t num_keys) {
  const float logit = 4.0f * head_dim * 3.0f * std::sqrt(static_cast<float>(head_dim));
  return test::kEpsilon * (2.0f * logit + 2.0f * num_keys + 64.0f);
}

void ExpectNear(const Result& actual, const Result& expected, float tolerance) {
  for (size_t i = 0; i < expected.out.size(); ++i) {
    ASSERT_NEAR(actual.out[i], expected.out[i], tolerance) << "output " << i;
  }
  for (size_t i = 0; i < expected.log_sum_exp.size(); ++i) {
    const float lse = expected.log_sum_exp[i];
    if (lse == -kInfinity) {
      ASSERT_EQ(actual.log_sum_exp[i], lse) << "log-sum-exp " << i;
    } else {
      ASSERT_NEAR(actual.log_sum_exp[i], lse, tolerance + 4 * test::kEpsilon * std::abs(lse))
          << "log-sum-exp " << i;
    }
  }
}

using Kind = AttentionWindow::Kind;

// Windows within a block of keys, of whole blocks, and larger than most sequences.
const AttentionWindow kWindows[] = {
    {Kind::kSliding, 1}, {Kind::kSliding, 7}, {Kind::kSliding, 64}, {Kind::kSliding, 100},
    {Kind::kChunked, 1}, {Kind::kChunked, 9}, {Kind::kChunked, 64}, {Kind::kChunked, 130}};

class SegmentAttentionTest : public testing::TestWithParam<HeadCase> {};

TEST_P(SegmentAttentionTest, EqualsTheReferenceOnFuzzedBatchesOnEveryTarget) {
  const HeadCase& test = GetParam();
  ThreadPool pool(2);
  for (uint32_t seed = 1; seed <= 4 + std::size(kWindows); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    Batch batch = RandomBatch(test, 2 + static_cast<int>(seed % 4), seed % 2 ? 30 : 150, random);
    // The first seeds without a window, then every window once over two sizes of segments.
    batch.window = seed <= 4 ? AttentionWindow() : kWindows[seed - 5];
    const Result expected = RunReference(test, batch);
    const int32_t num_keys = static_cast<int32_t>(batch.plan.slot_table.size());
    for (int64_t target : KernelTargets()) {
      SCOPED_TRACE(test::KernelTargetName(target));
      const ScopedKernelTarget scoped(target);
      ExpectNear(RunCpu(test, batch, batch.plan, pool), expected,
                 ToleranceFor(test.head_dim, num_keys));
    }
  }
}

AttentionPlan OneRun(const AttentionPlan& plan, const AttentionRun& run, int32_t row) {
  AttentionPlan alone = plan;
  AttentionRun single = run;
  single.row_begin = row;
  single.row_end = row + 1;
  single.query_begin += row - run.row_begin;
  single.position_begin += row - run.row_begin;
  alone.runs = {single};
  return alone;
}

TEST_P(SegmentAttentionTest, ARowIsTheSameBitForBitInEveryBatch) {
  const HeadCase& test = GetParam();
  ThreadPool one(1), two(2), four(4);
  std::mt19937 random(99);
  Batch batch = RandomBatch(test, 5, 100, random);
  const int64_t row_size = int64_t{test.num_heads} * test.head_dim;
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    for (const AttentionWindow& window : {AttentionWindow(), AttentionWindow{Kind::kSliding, 33},
                                          AttentionWindow{Kind::kChunked, 50}}) {
      SCOPED_TRACE(window.size);
      batch.window = window;
      const Result all = RunCpu(test, batch, batch.plan, one);
      for (ThreadPool* pool : {&one, &two, &four}) {
        const Result split = RunCpu(test, batch, test::SplitRuns(batch.plan, random), *pool);
        ASSERT_TRUE(SameBits(split.out, all.out));
        ASSERT_TRUE(SameBits(split.log_sum_exp, all.log_sum_exp));
      }
      for (const AttentionRun& run : batch.plan.runs) {
        const int32_t row = run.row_begin + (run.row_end - run.row_begin) / 2;
        const Result alone = RunCpu(test, batch, OneRun(batch.plan, run, row), four);
        ASSERT_EQ(0, std::memcmp(alone.out.data() + row * row_size, all.out.data() + row * row_size,
                                 row_size * sizeof(float)))
            << "row " << row;
      }
    }
  }
}

std::vector<HeadCase> AllCases() {
  std::vector<HeadCase> cases;
  const std::pair<int32_t, int32_t> heads[] = {{4, 4}, {6, 2}, {9, 3}, {24, 8}, {4, 1}};
  for (const auto& [num_heads, num_kv_heads] : heads) {
    for (int32_t head_dim : {16, 32, 64, 128}) {
      for (KvType type : {KvType::kFloat32, KvType::kBFloat16}) {
        // Every head layout at two sizes, every size in three layouts: the rest only repeats.
        if (num_heads == 24 && head_dim < 64) continue;
        cases.push_back({num_heads, num_kv_heads, head_dim, type});
      }
    }
  }
  for (KvType type : {KvType::kFloat32, KvType::kBFloat16}) {
    cases.push_back({2, 1, 10, type});   // no whole blocks of 128 bits
    cases.push_back({2, 2, 24, type});   // padded values
    cases.push_back({70, 1, 16, type});  // more heads on one kv head than a task takes
    cases.push_back({2, 1, 256, type});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Heads, SegmentAttentionTest, testing::ValuesIn(AllCases()),
                         test::HeadCaseName);

const HeadCase kSmall = {6, 2, 32, KvType::kFloat32};

// One sequence of `length` keys in slots 0, 1, ... and one row per entry of `query_indexes`.
Batch OneSequence(const HeadCase& test, int32_t length, std::vector<KeyInterval> intervals,
                  std::vector<int32_t> query_indexes, std::mt19937& random) {
  Batch batch;
  batch.kv = std::make_unique<KvStore>(test.type, length + 10, ShapeOf(test));
  for (int32_t slot = 0; slot < length; ++slot) {
    batch.kv->FillSlot(slot, random);
    batch.plan.slot_table.push_back(slot);
  }
  batch.plan.intervals = std::move(intervals);
  for (int32_t query : query_indexes) {
    AttentionRun run;
    run.row_begin = batch.num_rows;
    run.row_end = ++batch.num_rows;
    run.query_begin = query;
    run.interval_end = run.windowed_end = static_cast<int32_t>(batch.plan.intervals.size());
    run.position_begin = query;
    batch.plan.runs.push_back(run);
  }
  batch.q = RandomFloats(int64_t{batch.num_rows} * test.num_heads * test.head_dim, random);
  return batch;
}

TEST(SegmentAttentionLongTest, ALongRowIsSharedAmongThreadsWithoutChangingABit) {
  for (KvType type : {KvType::kFloat32, KvType::kBFloat16}) {
    const HeadCase test = {9, 3, 64, type};
    std::mt19937 random(5);
    Batch batch = OneSequence(test, 5000, {{0, 17, false}, {17, 3200, true}, {3200, 5000, false}},
                              {4999, 2500, 16}, random);
    batch.plan.scalings = {{0.9f, 0.9f, 0.1f}};
    batch.plan.runs[0].scaling = 0;
    ThreadPool one(1), two(2), four(4);
    const Result expected = RunReference(test, batch);
    for (int64_t target : KernelTargets()) {
      const ScopedKernelTarget scoped(target);
      const Result alone = RunCpu(test, batch, batch.plan, one);
      ExpectNear(alone, expected, ToleranceFor(64, 5000));
      ASSERT_TRUE(SameBits(RunCpu(test, batch, batch.plan, two).out, alone.out));
      ASSERT_TRUE(SameBits(RunCpu(test, batch, batch.plan, four).out, alone.out));
    }
  }
}

// Rows of one run of which each sees only the end of what lies before it: over the borders of
// chunks, with keys that no row sees in slots that do not exist.
TEST(SegmentAttentionLongTest, AWindowSkipsWhatNoRowSees) {
  for (KvType type : {KvType::kFloat32, KvType::kBFloat16}) {
    const HeadCase test = {9, 3, 64, type};
    std::mt19937 random(8);
    Batch batch = OneSequence(test, 5000, {{0, 17, false}, {17, 5000, false}}, {4900}, random);
    batch.num_rows = batch.plan.runs[0].row_end = 100;
    batch.q = RandomFloats(int64_t{100} * test.num_heads * test.head_dim, random);
    std::fill_n(batch.plan.slot_table.begin(), 1024, 1 << 20);  // CHECKed if it is read
    ThreadPool one(1), four(4);
    for (const AttentionWindow& window :
         {AttentionWindow{Kind::kSliding, 2500}, AttentionWindow{Kind::kSliding, 70},
          AttentionWindow{Kind::kChunked, 1500}}) {
      batch.window = window;
      const Result expected = RunReference(test, batch);
      const Result alone = RunCpu(test, batch, batch.plan, one);
      ExpectNear(alone, expected, ToleranceFor(64, 5000));
      ASSERT_TRUE(SameBits(RunCpu(test, batch, batch.plan, four).out, alone.out));
      for (const int32_t row : {0, 42, 99}) {
        const AttentionRun& run = batch.plan.runs[0];
        const Result single = RunCpu(test, batch, OneRun(batch.plan, run, row), four);
        ASSERT_EQ(0, std::memcmp(single.out.data() + row * 9 * 64, alone.out.data() + row * 9 * 64,
                                 9 * 64 * sizeof(float)));
      }
    }
  }
}

TEST(SegmentAttentionMaskedTest, ARowWithoutKeysIsZeroWithMinusInfinity) {
  std::mt19937 random(1);
  // No interval at all; an interval that begins after the query.
  for (const std::vector<KeyInterval>& intervals :
       {std::vector<KeyInterval>{}, std::vector<KeyInterval>{{5, 8, false}}}) {
    const Batch batch = OneSequence(kSmall, 8, intervals, {4}, random);
    ThreadPool pool(2);
    for (const Result& result :
         {RunCpu(kSmall, batch, batch.plan, pool), RunReference(kSmall, batch)}) {
      for (float value : result.out) EXPECT_EQ(value, 0.0f);
      for (float value : result.log_sum_exp) EXPECT_EQ(value, -kInfinity);
    }
  }
}

TEST(SegmentAttentionMaskedTest, KeysAfterTheQueryMayBePoison) {
  std::mt19937 random(2);
  // Keys 20..29 lie in slots that nobody wrote; rows 18 and 19 of one run do not see them.
  Batch batch = OneSequence(kSmall, 20, {{0, 30, false}}, {18}, random);
  for (int32_t slot = 20; slot < 30; ++slot) batch.plan.slot_table.push_back(slot);
  batch.plan.runs[0].row_end = 2;
  batch.num_rows = 2;
  batch.q = RandomFloats(int64_t{2} * kSmall.num_heads * kSmall.head_dim, random);
  ThreadPool pool(1);
  ExpectNear(RunCpu(kSmall, batch, batch.plan, pool), RunReference(kSmall, batch),
             ToleranceFor(kSmall.head_dim, 20));
}

TEST(SegmentAttentionMaskedTest, OneKeyIsCopiedWithWeightOne) {
  std::mt19937 random(3);
  const Batch batch = OneSequence(kSmall, 4, {{2, 3, false}}, {3}, random);
  ThreadPool pool(1);
  const Result result = RunCpu(kSmall, batch, batch.plan, pool);
  const float* v = static_cast<const float*>(batch.kv->view().v);
  for (int32_t h = 0; h < kSmall.num_heads; ++h) {
    for (int32_t d = 0; d < kSmall.head_dim; ++d) {
      EXPECT_EQ(result.out[h * kSmall.head_dim + d], v[(2 * 2 + h / 3) * kSmall.head_dim + d]);
    }
  }
}

TEST(SegmentAttentionMaskedTest, HugeLogitsDoNotOverflow) {
  std::mt19937 random(4);
  Batch batch = OneSequence(kSmall, 100, {{0, 100, false}}, {99}, random);
  for (float& value : batch.q) value *= 1e4f;
  ThreadPool pool(1);
  const Result result = RunCpu(kSmall, batch, batch.plan, pool);
  for (float value : result.out) EXPECT_TRUE(std::abs(value) <= 1.0f + 1e-5f) << value;
  for (float value : result.log_sum_exp) EXPECT_TRUE(std::isfinite(value));
}

// Softmax of segment columns at T = S = 1 and no bias is the plain softmax.
TEST(SegmentScalingTest, NeutralScalingIsPlainSoftmax) {
  std::mt19937 random(5);
  const std::vector<KeyInterval> intervals = {{0, 40, false}, {40, 200, true}, {200, 230, false}};
  Batch batch = OneSequence(kSmall, 230, intervals, {229, 120}, random);
  ThreadPool pool(1);
  const Result plain = RunCpu(kSmall, batch, batch.plan, pool);
  batch.plan.scalings = {SegmentScaling()};
  for (AttentionRun& run : batch.plan.runs) run.scaling = 0;
  ExpectNear(RunCpu(kSmall, batch, batch.plan, pool), plain, ToleranceFor(kSmall.head_dim, 230));
}

// N equal segments with -ln N added to their columns are one segment.
TEST(SegmentScalingTest, MinusLogNMakesNEqualSegmentsOne) {
  constexpr int32_t kCopies = 6, kLength = 25;
  std::mt19937 random(6);
  Batch once = OneSequence(kSmall, kLength + 3, {{0, kLength, true}, {kLength, kLength + 3, false}},
                           {kLength + 2}, random);
  ThreadPool pool(1);
  const Result expected = RunCpu(kSmall, once, once.plan, pool);
  AttentionPlan& plan = once.plan;
  const int32_t total = kCopies * kLength;
  std::vector<int32_t> table;
  for (int32_t i = 0; i < total; ++i) table.push_back(i % kLength);
  for (int32_t i = 0; i < 3; ++i) table.push_back(kLength + i);
  plan.slot_table = table;
  plan.intervals = {{0, total, true}, {total, total + 3, false}};
  plan.runs[0].query_begin = total + 2;
  plan.runs[0].scaling = 0;
  plan.scalings = {{1.0f, 1.0f, -std::log(static_cast<float>(kCopies))}};
  ExpectNear(RunCpu(kSmall, once, plan, pool), expected, ToleranceFor(kSmall.head_dim, total));
}

TEST(SegmentAttentionDeathTest, SlotsOutsideTheStoreAreOurOwnBug) {
  std::mt19937 random(7);
  Batch batch = OneSequence(kSmall, 4, {{0, 4, false}}, {3}, random);
  batch.plan.slot_table[1] = 1000;
  ThreadPool pool(1);
  EXPECT_DEATH(RunCpu(kSmall, batch, batch.plan, pool), "slot");
}

}  // namespace
}  // namespace chorus
