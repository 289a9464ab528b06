#pragma once

#include <atomic>
#include <cstdint>

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

// Before a kernel is started on the current device: once for each device. What it shares with other
// threads is a bit a device; devices past the 64th are prepared each time.
template <class Kernel>
cudaError_t Prepare() {
  // More than 48 KB must be asked for. Blocks that take much limit how many a multiprocessor has:
  // then it gets all of the shared memory that the cache can do without.
  constexpr int kDefaultSharedBytes = 48 << 10, kLimitingSharedBytes = 16 << 10;
  if constexpr (Kernel::kSharedBytes <= kLimitingSharedBytes) {
    return cudaSuccess;
  } else {
    static std::atomic<uint64_t> prepared = 0;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess) return error;
    const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
    if ((prepared.load() & bit) != 0) return cudaSuccess;
    const auto kernel = RunKernel<Kernel, typename Kernel::Launch>;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
    if constexpr (Kernel::kSharedBytes > kDefaultSharedBytes) {
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   Kernel::kSharedBytes);
      if (error != cudaSuccess) return error;
    }
    prepared.fetch_or(bit);
    return cudaSuccess;
  }
}

template <class Kernel>
cudaError_t KernelStart<Kernel>::Start(const typename Kernel::Launch& launch, int32_t grid_x,
                                       int32_t grid_y, cudaStream_t stream) {
  if (grid_x == 0) return cudaSuccess;
  if (const cudaError_t error = Prepare<Kernel>(); error != cudaSuccess) return error;
  RunKernel<Kernel>
      <<<dim3(grid_x, grid_y), Kernel::kThreads, Kernel::kSharedBytes, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace chorus::device
