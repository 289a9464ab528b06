// The CUDA kernels, for gpu_kernels_abi.cc.
#include <memory>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/cuda_kernels.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {

// Any device can run the first; what a Hopper runs it with, too, is measured with both.
int32_t NumKinds() {
  int device = 0;
  CudaAttentionKind kind;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  if (FindCudaAttentionKind(device, kind) != cudaSuccess) return 1;
  return kind == CudaAttentionKind::kHopper ? 2 : 1;
}

std::unique_ptr<DeviceKernels> CreateKernels(int32_t kind, void* stream,
                                             const std::vector<device::HostArray>&) {
  int device = 0;
  cudaGetDevice(&device);
  return CreateCudaKernels(device, static_cast<CudaAttentionKind>(kind),
                           static_cast<cudaStream_t>(stream));
}

}  // namespace chorus::bench
