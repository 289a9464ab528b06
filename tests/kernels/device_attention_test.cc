// The CUDA kernels' own source on the host back end, against the reference.
#include <string>

#include "gtest/gtest.h"

#include "core/kernels/cuda/hopper_attention.h"
#include "tests/kernels/device_attention_cases.h"

namespace chorus::device {
namespace {

// Every launch is checked for races and bounds.
template <bool kIsHopper>
struct HostBackend {
  static std::string WhyAbsent() { return ""; }
  template <class Element, int kHeadDim>
  static Result Run(const Step<Element>& step, uint32_t seed) {
    const HostKernelsOptions options = {
        .is_hopper = kIsHopper, .has_short_spans = true, .seed = seed};
    StepMemory<Element> memory(step, *KernelsOver({}, options));
    EXPECT_EQ(KernelsOver(memory.Arrays(), options)->SegmentAttention(memory.Args()),
              absl::OkStatus());
    return memory.result();
  }
};

TEST(HopperTilesPerBlockTest, ShortTilesFillTwoBlocksAProcessor) {
  EXPECT_EQ(HopperTilesPerBlock(768, 8, 132, /*is_short=*/true), 24);  // 64 requests of 6 x 50
  EXPECT_EQ(HopperTilesPerBlock(400, 8, 132, true), 13);               // 31 * 8 blocks, of 264
  EXPECT_EQ(HopperTilesPerBlock(100000, 8, 132, true), 24);
  EXPECT_EQ(HopperTilesPerBlock(12, 8, 132, true), 1);
  EXPECT_EQ(HopperTilesPerBlock(30, 512, 132, true), 24);
  EXPECT_EQ(HopperTilesPerBlock(768, 8, 132, false), 4);
  EXPECT_EQ(HopperTilesPerBlock(300, 8, 132, false), 2);
  EXPECT_EQ(HopperTilesPerBlock(12, 8, 132, false), 1);
}

TEST(PackedQueriesTest, TheProductIsTheDivision) {
  for (int heads = 1; heads <= PackedQueries::kMost; ++heads) {
    const PackedQueries packed = PackedQueries::Of(heads);
    for (int query = 0; query < PackedQueries::kMost; ++query) {
      ASSERT_EQ(packed.RowOf(query), query / heads) << query << " of " << heads;
      ASSERT_EQ(packed.HeadOf(query), query % heads) << query << " of " << heads;
    }
  }
}

using Backends = testing::Types<HostBackend<false>, HostBackend<true>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
