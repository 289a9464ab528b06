#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/device.h"
#include "core/kernels/segment_attention.h"
#include "core/segment/row_intervals.h"
#include "core/segment/segment_layout.h"
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/kernel_test_support.h"

// The attention kernels against the reference: the cases, for every back end that runs them.
namespace chorus::device {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Heads {
  int32_t num_heads, num_kv_heads;
};

// A step over a few sequences, as two attention plans: rows of segments and fused rows. Keys and
// values lie in scattered slots or pages; slots that nobody wrote are NaN.
template <class Element>
struct Step {
  AttentionShape shape;
  AttentionPlan own, fused;
  int32_t num_rows = 0;
  std::vector<Element> q, k, v;
  std::vector<float> q32, k32, v32;  // the same numbers
};

inline SegmentLayout RandomLayout(int32_t longest, std::mt19937& random) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = static_cast<int32_t>(random() % 3 * (random() % 50));
  for (uint32_t i = 0, n = random() % 5; i < n; ++i) {
    pieces.segment_lengths.push_back(1 + static_cast<int32_t>(random() % longest));
  }
  pieces.separator_length = static_cast<int32_t>(random() % 3);
  pieces.suffix_length = 1 + static_cast<int32_t>(random() % 9);
  return SegmentLayout::FromPieces(pieces).value();
}

// Slots 0, 1, ... in pages of so many, the pages in random order.
inline std::vector<int32_t> ShuffledSlots(int32_t num_pages, int32_t page_size,
                                          std::mt19937& random) {
  std::vector<int32_t> pages(num_pages), slots;
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), random);
  for (int32_t page : pages) {
    for (int32_t i = 0; i < page_size; ++i) slots.push_back(page * page_size + i);
  }
  return slots;
}

template <class Element>
void Append(const SegmentLayout& layout, int32_t scaling, std::vector<int32_t>& free_slots,
            std::mt19937& random, Step<Element>& step) {
  const int32_t length = layout.length() + static_cast<int32_t>(random() % 4);
  const int32_t first = random() % 3 == 0 ? length - 1 : static_cast<int32_t>(random() % length);
  const int32_t table_begin = static_cast<int32_t>(step.own.slot_table.size());
  step.own.slot_table.insert(step.own.slot_table.end(), free_slots.end() - length,
                             free_slots.end());
  free_slots.resize(free_slots.size() - length);
  const RowIntervals intervals = RowIntervals::FromLayout(layout, length, scaling >= 0);
  for (const RowIntervals::Run& run : intervals.runs()) {
    const int32_t begin = std::max(run.rows.begin, first);
    if (begin >= run.rows.end) continue;
    AttentionPlan& plan = begin >= layout.original_length() ? step.fused : step.own;
    const bool has_segments = std::any_of(run.keys.begin(), run.keys.end(),
                                          [](const KeyInterval& keys) { return keys.is_segment; });
    const int32_t interval_begin = static_cast<int32_t>(plan.intervals.size());
    plan.intervals.insert(plan.intervals.end(), run.keys.begin(), run.keys.end());
    const int32_t row_begin = step.num_rows;
    step.num_rows += run.rows.end - begin;
    plan.runs.push_back({.row_begin = row_begin,
                         .row_end = step.num_rows,
                         .query_begin = begin,
                         .table_begin = table_begin,
                         .interval_begin = interval_begin,
                         .interval_end = static_cast<int32_t>(plan.intervals.size()),
                         .scaling = has_segments ? scaling : -1});
  }
}

template <class Element, int kHeadDim>
Step<Element> RandomStep(const Heads& heads, int num_sequences, int32_t longest, uint32_t seed) {
  std::mt19937 random(seed);
  Step<Element> step;
  step.shape = {heads.num_heads, heads.num_kv_heads, kHeadDim,
                1.0f / std::sqrt(static_cast<float>(kHeadDim))};
  const int32_t page_size = std::array{1, 48, 1000}[seed % 3];
  const int32_t num_slots = num_sequences * (5 * (longest + 2) + 130);
  std::vector<int32_t> free_slots =
      ShuffledSlots((num_slots + page_size - 1) / page_size, page_size, random);
  const int64_t slot_size = int64_t{heads.num_kv_heads} * kHeadDim;
  const int64_t num_elements = static_cast<int64_t>(free_slots.size()) * slot_size;
  step.k = RandomElements<Element>(num_elements, 1.0f, random);
  step.v = RandomElements<Element>(num_elements, 1.0f, random);
  step.own.scalings = {{0.9f, 0.8f, -0.5f}, {1.3f, 1.1f, 0.7f}};
  for (int i = 0; i < num_sequences; ++i) {
    Append(RandomLayout(longest, random), static_cast<int32_t>(random() % 3) - 1, free_slots,
           random, step);
  }
  step.fused.slot_table = step.own.slot_table;
  step.fused.scalings = step.own.scalings;
  for (int32_t slot : free_slots) {
    std::fill_n(step.k.begin() + slot * slot_size, slot_size, Element{0xFFFF});
    std::fill_n(step.v.begin() + slot * slot_size, slot_size, Element{0xFFFF});
  }
  step.q =
      RandomElements<Element>(int64_t{step.num_rows} * heads.num_heads * kHeadDim, 3.0f, random);
  step.q32 = ToFloats(step.q);
  step.k32 = ToFloats(step.k);
  step.v32 = ToFloats(step.v);
  return step;
}

struct Result {
  std::vector<float> out, log_sum_exp;
};

template <class Element>
Result RunReference(Step<Element>& step) {
  Result result;
  result.out.assign(step.q.size(), std::nanf(""));
  result.log_sum_exp.assign(int64_t{step.num_rows} * step.shape.num_heads, std::nanf(""));
  AttentionArgs args;
  args.shape = step.shape;
  args.q = step.q32.data();
  args.kv = {KvType::kFloat32, step.k32.data(), step.v32.data(),
             static_cast<int32_t>(step.k.size() / step.shape.num_kv_heads / step.shape.head_dim)};
  args.out = result.out.data();
  args.log_sum_exp = result.log_sum_exp.data();
  SegmentAttentionReference(step.own, args);
  SegmentAttentionReference(step.fused, args);
  return result;
}

inline void ExpectNear(const Result& actual, const Result& expected, float tolerance) {
  ASSERT_EQ(actual.out.size(), expected.out.size());
  for (size_t i = 0; i < expected.out.size(); ++i) {
    ASSERT_NEAR(actual.out[i], expected.out[i], tolerance) << "output " << i;
  }
  for (size_t i = 0; i < expected.log_sum_exp.size(); ++i) {
    const float lse = expected.log_sum_exp[i];
    if (lse == -kInfinity) {
      ASSERT_EQ(actual.log_sum_exp[i], lse) << "log-sum-exp " << i;
    } else {
      ASSERT_NEAR(actual.log_sum_exp[i], lse, 1e-4f) << "log-sum-exp " << i;
    }
  }
}

template <class Backend, class Element, int kHeadDim>
void ExpectEqualsReference(const Heads& heads, uint32_t seed) {
  SCOPED_TRACE(testing::Message() << heads.num_heads << "/" << heads.num_kv_heads << " heads of "
                                  << kHeadDim << ", seed " << seed);
  Step<Element> step = RandomStep<Element, kHeadDim>(heads, 1 + static_cast<int>(seed % 3),
                                                     seed % 2 ? 30 : 90, seed);
  ExpectNear(Backend::template Run<Element, kHeadDim>(step, seed), RunReference(step),
             OutputTolerance<Element>());
}

// A back end runs a step: `static std::string WhyAbsent()`, "" if it can, and `template <class
// Element, int kHeadDim> static Result Run(const Step<Element>&, uint32_t seed)`.
template <class Backend>
class DeviceAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = Backend::WhyAbsent(); !why.empty()) GTEST_SKIP() << why;
  }
};
TYPED_TEST_SUITE_P(DeviceAttentionTest);

TYPED_TEST_P(DeviceAttentionTest, EqualsTheReferenceOnFuzzedSteps) {
  uint32_t seed = 1;
  for (const Heads& heads : {Heads{2, 2}, Heads{6, 2}, Heads{4, 1}, Heads{16, 1}, Heads{9, 3}}) {
    ExpectEqualsReference<TypeParam, BFloat16, 64>(heads, seed++);
    ExpectEqualsReference<TypeParam, BFloat16, 128>(heads, seed++);
    ExpectEqualsReference<TypeParam, Float16, 64>(heads, seed++);
    ExpectEqualsReference<TypeParam, Float16, 128>(heads, seed++);
  }
}

TYPED_TEST_P(DeviceAttentionTest, ARowIsTheSameBitForBitInEveryBatch) {
  std::mt19937 random(7);
  Step<BFloat16> step = RandomStep<BFloat16, 64>({6, 2}, 3, 120, 42);
  const Result all = TypeParam::template Run<BFloat16, 64>(step, 1);
  for (uint32_t seed = 2; seed <= 4; ++seed) {  // warps advance in another order, too
    Step<BFloat16> split = step;
    split.own = test::SplitRuns(step.own, random);
    split.fused = test::SplitRuns(step.fused, random);
    const Result again = TypeParam::template Run<BFloat16, 64>(split, seed);
    EXPECT_TRUE(SameBits(again.out, all.out));
    EXPECT_TRUE(SameBits(again.log_sum_exp, all.log_sum_exp));
  }
}

// One sequence of `length` keys in slots 0, 1, ... and one run of rows from `query` on.
template <class Element, int kHeadDim>
Step<Element> OneRun(const Heads& heads, int32_t length, std::vector<KeyInterval> intervals,
                     int32_t query, int32_t num_rows, bool is_fused) {
  std::mt19937 random(11);
  Step<Element> step;
  step.shape = {heads.num_heads, heads.num_kv_heads, kHeadDim,
                1.0f / std::sqrt(static_cast<float>(kHeadDim))};
  step.num_rows = num_rows;
  AttentionPlan& plan = is_fused ? step.fused : step.own;
  plan.slot_table.resize(length);
  std::iota(plan.slot_table.begin(), plan.slot_table.end(), 0);
  plan.runs = {{.row_end = num_rows,
                .query_begin = query,
                .interval_end = static_cast<int32_t>(intervals.size())}};
  plan.intervals = std::move(intervals);
  const int64_t kv_size = int64_t{length} * heads.num_kv_heads * kHeadDim;
  step.k = RandomElements<Element>(kv_size, 1.0f, random);
  step.v = RandomElements<Element>(kv_size, 1.0f, random);
  step.q = RandomElements<Element>(int64_t{num_rows} * heads.num_heads * kHeadDim, 3.0f, random);
  step.q32 = ToFloats(step.q);
  step.k32 = ToFloats(step.k);
  step.v32 = ToFloats(step.v);
  return step;
}

TYPED_TEST_P(DeviceAttentionTest, LongRowsOverManySpansAndBlocks) {
  for (bool is_fused : {false, true}) {
    Step<BFloat16> step = OneRun<BFloat16, 128>(
        {3, 1}, 2500, {{0, 17, false}, {17, 1600, true}, {1600, 2500, false}}, 2490, 10, is_fused);
    step.fused.scalings = {{0.9f, 0.9f, 0.1f}};
    if (is_fused) step.fused.runs[0].scaling = 0;
    ExpectNear(TypeParam::template Run<BFloat16, 128>(step, 1), RunReference(step),
               OutputTolerance<BFloat16>());
  }
}

// More spans than a warp has lanes, scaled and others in turns; the last is seen by one row only.
TYPED_TEST_P(DeviceAttentionTest, MoreSpansThanLanes) {
  std::vector<KeyInterval> intervals;
  for (int32_t i = 0; i < 45; ++i) intervals.push_back({9 * i, 9 * i + 7, i % 3 != 0});
  intervals.push_back({410, 412, false});
  Step<BFloat16> step = OneRun<BFloat16, 64>({4, 2}, 412, intervals, 409, 2, /*is_fused=*/true);
  step.fused.scalings = {{0.9f, 0.9f, 0.1f}};
  step.fused.runs[0].scaling = 0;
  const Result both = TypeParam::template Run<BFloat16, 64>(step, 1);
  ExpectNear(both, RunReference(step), OutputTolerance<BFloat16>());
  AttentionRun lower = step.fused.runs[0], upper = lower;
  lower.row_end = upper.row_begin = 1;
  upper.query_begin = 410;
  step.fused.runs = {lower, upper};
  const Result alone = TypeParam::template Run<BFloat16, 64>(step, 1);
  EXPECT_TRUE(SameBits(alone.out, both.out));
  EXPECT_TRUE(SameBits(alone.log_sum_exp, both.log_sum_exp));
}

// Several tiles, whose rings of blocks wrap around.
TYPED_TEST_P(DeviceAttentionTest, ManyRowsOverManyBlocks) {
  Step<Float16> step = OneRun<Float16, 64>({2, 1}, 1100, {{3, 30, false}, {40, 1100, true}}, 960,
                                           140, /*is_fused=*/false);
  ExpectNear(TypeParam::template Run<Float16, 64>(step, 1), RunReference(step),
             OutputTolerance<Float16>());
}

// Rows 30 to 41 stand in a tile whose keys fill half a block, or in one that reaches further.
TYPED_TEST_P(DeviceAttentionTest, ARowIsTheSameInAShortTileAndInALongOne) {
  const Step<Float16> step =
      OneRun<Float16, 128>({3, 1}, 100, {{0, 100, false}}, 0, 100, /*is_fused=*/false);
  Step<Float16> split = step;
  AttentionRun lower = step.own.runs[0], upper = lower;
  lower.row_end = upper.row_begin = upper.query_begin = 30;
  split.own.runs = {lower, upper};
  const Result whole = TypeParam::template Run<Float16, 128>(step, 1);
  const Result parts = TypeParam::template Run<Float16, 128>(split, 1);
  EXPECT_TRUE(SameBits(parts.out, whole.out));
  EXPECT_TRUE(SameBits(parts.log_sum_exp, whole.log_sum_exp));
}

TYPED_TEST_P(DeviceAttentionTest, ARowWithoutKeysIsZeroWithMinusInfinity) {
  for (bool is_fused : {false, true}) {
    for (const std::vector<KeyInterval>& intervals :
         {std::vector<KeyInterval>{}, std::vector<KeyInterval>{{5, 8, false}}}) {
      Step<Float16> step = OneRun<Float16, 64>({4, 2}, 8, intervals, 4, 1, is_fused);
      const Result result = TypeParam::template Run<Float16, 64>(step, 1);
      for (float value : result.out) EXPECT_EQ(value, 0.0f);
      for (float value : result.log_sum_exp) EXPECT_EQ(value, -kInfinity);
    }
  }
}

TYPED_TEST_P(DeviceAttentionTest, HugeLogitsDoNotOverflow) {
  for (bool is_fused : {false, true}) {
    Step<BFloat16> step = OneRun<BFloat16, 64>({2, 1}, 200, {{0, 200, false}}, 199, 1, is_fused);
    for (BFloat16& value : step.q) value = FromFloat<BFloat16>(1e4f * ToFloat(value));
    step.q32 = ToFloats(step.q);
    const Result result = TypeParam::template Run<BFloat16, 64>(step, 1);
    for (float value : result.out) EXPECT_LE(std::abs(value), 1.0f);
    for (float value : result.log_sum_exp) EXPECT_TRUE(std::isfinite(value));
  }
}

REGISTER_TYPED_TEST_SUITE_P(DeviceAttentionTest, EqualsTheReferenceOnFuzzedSteps,
                            ARowIsTheSameBitForBitInEveryBatch, LongRowsOverManySpansAndBlocks,
                            MoreSpansThanLanes, ManyRowsOverManyBlocks,
                            ARowIsTheSameInAShortTileAndInALongOne,
                            ARowWithoutKeysIsZeroWithMinusInfinity, HugeLogitsDoNotOverflow);

}  // namespace chorus::device
