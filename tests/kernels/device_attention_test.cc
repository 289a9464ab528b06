// The CUDA kernels' own source on the host back end, against the reference.
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/span_attention.h"
#include "tests/kernels/device_attention_cases.h"

namespace chorus::device {
namespace {

// Runs the three kernels as a step would; every launch is checked for races and bounds. Own is the
// kernel of the rows of segments.
template <class Element, int kHeadDim, template <class, int> class Own>
class HostStep {
 public:
  using Prefill = Own<Element, kHeadDim>;
  using Spans = SpanAttention<Element, kHeadDim>;
  using Merge = MergeSpans<Element, kHeadDim>;

  HostStep(const Step<Element>& step, uint32_t seed) : step_(step), seed_(seed) {
    out_.assign(step.q.size(), Element{0xFFFF});
    log_sum_exp_.assign(int64_t{step.num_rows} * step.shape.num_heads, std::nanf(""));
  }

  Result Run() {
    const int32_t heads = step_.shape.num_heads / step_.shape.num_kv_heads;
    const TilePlan own =
        PlanTiles(step_.own, {}, {Prefill::kTileQueries / heads, Prefill::kKeyBlock, 1 << 20});
    Launch<Prefill>(step_.own, own, static_cast<int>(own.tiles.size()));
    // Short spans, and few, so that rows of some hundred keys have longer ones.
    const TilePlan fused =
        PlanTiles(step_.fused, {}, {kSpanQueries / heads, kKeyBlock, kKeyBlock, /*max_spans=*/3});
    const size_t states = fused.spans.size() * step_.shape.num_kv_heads * kSpanQueries;
    values_.assign(states * kHeadDim, std::nanf(""));
    max_.assign(states, std::nanf(""));
    sum_.assign(states, std::nanf(""));
    Launch<Spans>(step_.fused, fused, static_cast<int>(fused.spans.size()));
    Launch<Merge>(step_.fused, fused, static_cast<int>(fused.tiles.size()));
    return {ToFloats(out_), log_sum_exp_};
  }

 private:
  template <class Kernel>
  void Launch(const AttentionPlan& plan, const TilePlan& tiles, int grid_x) {
    typename Kernel::Launch launch;
    static_cast<AttentionLaunch<Element>&>(launch) = {
        .q = step_.q.data(),
        .k = step_.k.data(),
        .v = step_.v.data(),
        .tiles = tiles.tiles.data(),
        .spans = tiles.spans.data(),
        .slot_table = plan.slot_table.data(),
        .scalings = plan.scalings.data(),
        .out = out_.data(),
        .log_sum_exp = log_sum_exp_.data(),
        .num_heads = step_.shape.num_heads,
        .num_kv_heads = step_.shape.num_kv_heads,
        .heads_per_kv_head = step_.shape.num_heads / step_.shape.num_kv_heads,
        .softmax_scale = step_.shape.softmax_scale,
        .span_values = values_.data(),
        .span_max = max_.data(),
        .span_sum = sum_.data()};
    if constexpr (requires { launch.k_map; }) {
      const int num_kv_heads = step_.shape.num_kv_heads;
      const int num_slots = static_cast<int>(step_.k.size()) / (num_kv_heads * kHeadDim);
      launch.k_map = {step_.k.data(), {kHeadDim, num_kv_heads, num_slots}, kHopperBoxRows};
      launch.v_map = {step_.v.data(), {kHeadDim, num_kv_heads, num_slots}, kHopperBoxRows};
      launch.num_tiles = grid_x;
      launch.tiles_per_block = 1 + static_cast<int>(seed_ % 3);
      grid_x = (grid_x + launch.tiles_per_block - 1) / launch.tiles_per_block;
    }
    const HostArray arrays[] = {
        ReadOnly(step_.q),       ReadOnly(step_.k),     ReadOnly(step_.v),
        ReadOnly(tiles.tiles),   ReadOnly(tiles.spans), ReadOnly(plan.slot_table),
        ReadOnly(plan.scalings), Writable(out_),        Writable(log_sum_exp_),
        Writable(values_),       Writable(max_),        Writable(sum_)};
    const HostLaunch host = {.grid_x = grid_x,
                             .grid_y = step_.shape.num_kv_heads,
                             .num_threads = Kernel::kThreads,
                             .shared_bytes = Kernel::kSharedBytes,
                             .seed = seed_,
                             .arrays = arrays,
                             .num_arrays = static_cast<int>(std::size(arrays))};
    ASSERT_EQ(RunOnHost(host, [&] { Kernel::Run(launch, 0); }), "");
  }

  const Step<Element>& step_;
  const uint32_t seed_;
  std::vector<Element> out_;
  std::vector<float> log_sum_exp_, values_, max_, sum_;
};

template <template <class, int> class Own>
struct HostBackend {
  static std::string WhyAbsent() { return ""; }
  template <class Element, int kHeadDim>
  static Result Run(const Step<Element>& step, uint32_t seed) {
    return HostStep<Element, kHeadDim, Own>(step, seed).Run();
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

using Backends = testing::Types<HostBackend<PrefillAttention>, HostBackend<HopperAttention>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
