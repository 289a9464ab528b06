// The plain attention kernel's own source on the test's device, against the reference.
#include "core/kernels/cuda/plain_attention.h"

#include <limits>
#include <string>

#include "gtest/gtest.h"

#include "tests/kernels/device_attention_run.h"

namespace chorus::device {
namespace {

class PlainAttentionTest : public test::DeviceTest {};

template <class Element>
void ExpectEqualsReference(const AttentionShape& shape, const AttentionWindow& window,
                           uint32_t seed) {
  SCOPED_TRACE(testing::Message() << shape.num_heads << "/" << shape.num_kv_heads << " heads of "
                                  << shape.head_dim << ", seed " << seed);
  DeviceBatch<Element> batch = RandomDeviceBatch<Element>(shape, 4, 150, seed);
  std::vector<float> out(batch.q.size()), log_sum_exp(int64_t{batch.num_rows()} * shape.num_heads);
  AttentionArgs args = batch.ReferenceArgs(window);
  args.out = out.data();
  args.log_sum_exp = log_sum_exp.data();
  SegmentAttentionReference(batch.plan, args);
  AttentionOnDevice<Element> host(batch, seed);
  host.RunPlain(PlanTiles(batch.plan, window, kPlainTileShape));
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(ToFloat(host.out()[i]), out[i], OutputTolerance<Element>()) << "output " << i;
  }
  for (size_t i = 0; i < log_sum_exp.size(); ++i) {
    if (log_sum_exp[i] == -std::numeric_limits<float>::infinity()) {
      ASSERT_EQ(host.log_sum_exp()[i], log_sum_exp[i]) << "log-sum-exp " << i;
    } else {
      ASSERT_NEAR(host.log_sum_exp()[i], log_sum_exp[i], 1e-4f) << "log-sum-exp " << i;
    }
  }
}

TEST_F(PlainAttentionTest, EqualsTheReferenceOnFuzzedBatches) {
  const AttentionShape shapes[] = {ShapeOfHeads(4, 4, 16),  ShapeOfHeads(6, 2, 48),
                                   ShapeOfHeads(20, 1, 64), ShapeOfHeads(3, 1, 128),
                                   ShapeOfHeads(9, 3, 10),  ShapeOfHeads(2, 2, 256)};
  uint32_t seed = 1;
  for (const AttentionShape& shape : shapes) {
    for (const AttentionWindow& window : test::kWindows) {
      ExpectEqualsReference<BFloat16>(shape, window, seed++);
    }
    ExpectEqualsReference<Float16>(shape, test::kWindows[seed % std::size(test::kWindows)], seed);
    ++seed;
  }
}

TEST_F(PlainAttentionTest, ARowIsTheSameBitForBitInEveryBatch) {
  std::mt19937 random(5);
  const DeviceBatch<BFloat16> batch =
      RandomDeviceBatch<BFloat16>(ShapeOfHeads(6, 2, 48), 4, 200, 42);
  for (const AttentionWindow& window : test::kWindows) {
    AttentionOnDevice<BFloat16> all(batch);
    all.RunPlain(PlanTiles(batch.plan, window, kPlainTileShape));
    AttentionOnDevice<BFloat16> again(batch, /*seed=*/2);
    again.RunPlain(PlanTiles(test::SplitRuns(batch.plan, random), window, kPlainTileShape));
    EXPECT_TRUE(SameBits(again.out(), all.out()));
    EXPECT_TRUE(SameBits(again.log_sum_exp(), all.log_sum_exp()));
  }
}

TEST_F(PlainAttentionTest, ARowWithoutKeysIsZeroWithMinusInfinity) {
  DeviceBatch<Float16> batch = RandomDeviceBatch<Float16>(ShapeOfHeads(2, 1, 16), 1, 20, 1);
  batch.plan.intervals.assign(batch.plan.intervals.size(), {});
  AttentionOnDevice<Float16> host(batch);
  host.RunPlain(PlanTiles(batch.plan, {}, kPlainTileShape));
  for (Float16 value : host.out()) EXPECT_EQ(ToFloat(value), 0.0f);
  for (float value : host.log_sum_exp()) EXPECT_EQ(value, -std::numeric_limits<float>::infinity());
}

TEST_F(PlainAttentionTest, ATileWithoutRowsIsPadding) {
  const DeviceBatch<Float16> batch = RandomDeviceBatch<Float16>(ShapeOfHeads(2, 1, 16), 1, 20, 1);
  AttentionOnDevice<Float16> host(batch);
  TilePlan tiles;
  tiles.tiles.resize(3);
  host.RunPlain(tiles);
  for (Float16 value : host.out()) EXPECT_EQ(value.bits, 0xFFFF);
}

}  // namespace
}  // namespace chorus::device
