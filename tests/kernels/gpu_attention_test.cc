// The attention kernels on a GPU, against the reference: the cases of device_attention_test.cc.
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <cuda_runtime_api.h>

#include "gtest/gtest.h"

#include "core/kernels/cuda/segment_attention_cuda.h"
#include "tests/kernels/device_attention_cases.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus::device {
namespace {

using test::GpuArrays;

DeviceTiles TilesOn(const GpuArrays& gpu, const TilePlan& plan) {
  return {plan.tiles.empty() ? nullptr : gpu.At(plan.tiles.data()),
          static_cast<int32_t>(plan.tiles.size()),
          plan.spans.empty() ? nullptr : gpu.At(plan.spans.data()),
          static_cast<int32_t>(plan.spans.size()), plan.longest_span};
}

template <CudaAttentionKind kKind>
struct GpuBackend {
  static std::string WhyAbsent() {
    if (const std::string why = test::WhyNoGpu(); !why.empty()) return why;
    CudaAttentionKind kind;
    const cudaError_t error = FindCudaAttentionKind(/*device=*/0, kind);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    return kKind == CudaAttentionKind::kHopper && kind != kKind
               ? "this GPU is not of compute capability 9.0"
               : "";
  }

  template <class Element, int kHeadDim>
  static Result Run(const Step<Element>& step, uint32_t) {
    const TilePlan own = PlanTiles(step.own, {}, CudaOwnTileShape(step.shape, kKind));
    const TilePlan fused = PlanTiles(step.fused, {}, CudaFusedTileShape(step.shape));
    std::vector<Element> out(step.q.size(), Element{0xFFFF});
    std::vector<float> log_sum_exp(int64_t{step.num_rows} * step.shape.num_heads, std::nanf(""));
    std::vector<float> workspace(
        AttentionWorkspaceFloats(step.shape, static_cast<int32_t>(fused.spans.size())),
        std::nanf(""));
    const std::vector<int32_t>& slot_table =
        step.own.slot_table.empty() ? step.fused.slot_table : step.own.slot_table;
    const std::vector<SegmentScaling>& scalings =
        step.fused.scalings.empty() ? step.own.scalings : step.fused.scalings;
    GpuArrays gpu({ReadOnly(step.q), ReadOnly(step.k), ReadOnly(step.v), ReadOnly(own.tiles),
                   ReadOnly(own.spans), ReadOnly(fused.tiles), ReadOnly(fused.spans),
                   ReadOnly(slot_table), ReadOnly(scalings), Writable(out), Writable(log_sum_exp),
                   Writable(workspace)});
    DeviceAttentionArgs args;
    args.type = std::is_same_v<Element, BFloat16> ? DeviceType::kBFloat16 : DeviceType::kFloat16;
    args.shape = step.shape;
    args.q = gpu.At(step.q.data());
    args.k = gpu.At(step.k.data());
    args.v = gpu.At(step.v.data());
    args.num_slots = static_cast<int32_t>(step.v.size()) / (step.shape.num_kv_heads * kHeadDim);
    args.out = gpu.At(out.data());
    args.log_sum_exp = gpu.At(log_sum_exp.data());
    args.slot_table = gpu.At(slot_table.data());
    args.scalings = scalings.empty() ? nullptr : gpu.At(scalings.data());
    args.own = TilesOn(gpu, own);
    args.fused = TilesOn(gpu, fused);
    args.workspace = workspace.empty() ? nullptr : gpu.At(workspace.data());
    const cudaError_t error = LaunchSegmentAttention(args, kKind, /*stream=*/nullptr);
    EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
    gpu.Download();
    return {ToFloats(out), std::move(log_sum_exp)};
  }
};
using Backends =
    testing::Types<GpuBackend<CudaAttentionKind::kAmpere>, GpuBackend<CudaAttentionKind::kHopper>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
