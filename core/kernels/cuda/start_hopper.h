#pragma once

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/attention_launch.h"

namespace chorus::device {

// Starts HopperAttention on a device of compute capability 9.0. Tiles are cut by its own shape.
template <class Element, int kHeadDim>
cudaError_t StartHopperAttention(const AttentionLaunch<Element>& launch, dim3 grid,
                                 cudaStream_t stream);

}  // namespace chorus::device
