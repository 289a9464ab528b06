// The first GPU of this machine.
#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/kernels/gpu_arrays.h"
#include "tests/kernels/test_device.h"

namespace chorus::test {

std::string WhyNoDevice() { return WhyNoGpu(); }

absl::Status RunOnDevice(
    const std::vector<device::HostArray>& arrays, uint32_t,
    const std::function<absl::Status(DeviceKernels&, const Addresses& at)>& start) {
  GpuArrays gpu(arrays);
  const auto kernels = CreateCudaKernels(/*device_index=*/0, CudaAttentionKind::kAmpere,
                                         /*stream=*/nullptr);
  const absl::Status status =
      start(*kernels, Addresses([&](const void* host) { return gpu.At(host); }));
  gpu.Download();
  return status;
}

}  // namespace chorus::test
