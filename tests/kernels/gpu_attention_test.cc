// The attention kernels on a GPU, against the reference: the cases of device_attention_test.cc.
#include <string>

#include <cuda_runtime_api.h>

#include "gtest/gtest.h"

#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/kernels/device_attention_cases.h"
#include "tests/kernels/device_attention_run.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus::device {
namespace {

using test::GpuArrays;

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
    const test::Addresses at([&](const void* host) { return gpu.At(host); });
    EXPECT_EQ(kernels->SegmentAttention(ArgsAt(at, memory.Args())), absl::OkStatus());
    gpu.Download();
    return memory.result();
  }
};
using Backends =
    testing::Types<GpuBackend<CudaAttentionKind::kAmpere>, GpuBackend<CudaAttentionKind::kHopper>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
