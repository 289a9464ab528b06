// The elementwise kernels on a GPU, against those of the CPU: the cases of
// device_elementwise_test.cc.
#include <string>

#include "gtest/gtest.h"

#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/kernels/device_elementwise_cases.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus::device {
namespace {

struct GpuBackend {
  static std::string WhyAbsent() { return test::WhyNoGpu(); }
  template <class Start>
  static absl::Status Run(const Arrays& arrays, const Start& start) {
    test::GpuArrays gpu(arrays);
    const auto kernels = CreateCudaKernels(/*device_index=*/0, CudaAttentionKind::kAmpere,
                                           /*stream=*/nullptr);
    const absl::Status status = start(*kernels, [&](auto* host) { return gpu.At(host); });
    gpu.Download();
    return status;
  }
};

using Cases =
    testing::Types<ElementwiseCase<GpuBackend, BFloat16>, ElementwiseCase<GpuBackend, Float16>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceElementwiseTest, Cases);

}  // namespace
}  // namespace chorus::device
