// The attention kernels on a GPU, against the reference: the cases of device_attention_test.cc.
#include <string>

#include <cuda_runtime_api.h>

#include "gtest/gtest.h"

#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/kernels/device_attention_cases.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus::device {
namespace {

using test::GpuArrays;

DeviceTiles TilesOn(const GpuArrays& gpu, const DeviceTiles& tiles) {
  return {gpu.At(tiles.tiles), tiles.num_tiles, gpu.At(tiles.spans), tiles.num_spans,
          tiles.longest_span};
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
    const auto kernels = CreateCudaKernels(/*device_index=*/0, kKind, /*stream=*/nullptr);
    StepMemory<Element> memory(step, *kernels);
    GpuArrays gpu(memory.Arrays());
    DeviceAttentionArgs args = memory.Args();
    args.q = gpu.At(args.q);
    args.k = gpu.At(args.k);
    args.v = gpu.At(args.v);
    args.out = gpu.At(args.out);
    args.log_sum_exp = gpu.At(args.log_sum_exp);
    args.slot_table = gpu.At(args.slot_table);
    args.scalings = gpu.At(args.scalings);
    args.own = TilesOn(gpu, args.own);
    args.fused = TilesOn(gpu, args.fused);
    args.workspace = gpu.At(args.workspace);
    EXPECT_EQ(kernels->SegmentAttention(args), absl::OkStatus());
    gpu.Download();
    return memory.result();
  }
};
using Backends =
    testing::Types<GpuBackend<CudaAttentionKind::kAmpere>, GpuBackend<CudaAttentionKind::kHopper>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
