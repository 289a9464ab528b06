#pragma once

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/start_kernel.h"

// How the .cu files start a kernel struct: K::Run(launch, shared) by K::kThreads threads.
namespace chorus::device {

template <class Kernel, class Launch>
__global__ void __launch_bounds__(Kernel::kThreads)
    RunKernel(const __grid_constant__ Launch launch) {
  extern __shared__ __align__(1024) char shared[];
  Kernel::Run(launch, static_cast<SharedAddress>(__cvta_generic_to_shared(shared)));
}

template <class Kernel>
cudaError_t KernelStart<Kernel>::Start(const typename Kernel::Launch& launch, int32_t grid_x,
                                       int32_t grid_y, cudaStream_t stream) {
  using Launch = typename Kernel::Launch;
  if (grid_x == 0) return cudaSuccess;
  constexpr int kDefaultSharedBytes = 48 << 10;  // more must be asked for, on every device
  if (Kernel::kSharedBytes > kDefaultSharedBytes) {
    const cudaError_t error =
        cudaFuncSetAttribute(RunKernel<Kernel, Launch>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             Kernel::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  RunKernel<Kernel>
      <<<dim3(grid_x, grid_y), Kernel::kThreads, Kernel::kSharedBytes, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace chorus::device
