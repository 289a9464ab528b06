#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/device_args.h"

// Where code that nvcc does not compile starts what it does: launch.cuh has the definition, and a
// .cu file makes it for each kernel.
namespace chorus::device {

template <class Kernel>
struct KernelStart {
  // Of blocks [grid_x, grid_y] on the current device; an empty grid is no work.
  static cudaError_t Start(const typename Kernel::Launch& launch, int32_t grid_x, int32_t grid_y,
                           cudaStream_t stream);
};

// HopperAttention over `tiles`, whose pointers `launch` holds, on a device of compute capability
// 9.0; its launch only nvcc knows. cudaErrorInvalidValue: the driver makes no tensor map of k and v.
template <class Element, int kHeadDim>
struct HopperStart {
  static cudaError_t Start(const AttentionLaunch<Element>& launch, const DeviceTiles& tiles,
                           int32_t num_slots, cudaStream_t stream);
};

}  // namespace chorus::device
