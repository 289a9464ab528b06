// On a GPU.
#include <string>
#include <vector>

#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/kernels/device_sampling_support.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus {

std::string WhyNoSamplingDevice() { return test::WhyNoGpu(); }

absl::Status RunSampling(const std::vector<device::HostArray>& arrays, uint32_t,
                         const StartSampling& start) {
  test::GpuArrays gpu(arrays);
  const auto kernels = CreateCudaKernels(/*device_index=*/0, CudaAttentionKind::kAmpere,
                                         /*stream=*/nullptr);
  const absl::Status status =
      start(*kernels, [&](const void* host) { return gpu.At(const_cast<void*>(host)); });
  gpu.Download();
  return status;
}

}  // namespace chorus
