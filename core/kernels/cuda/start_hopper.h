#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/device_args.h"

namespace chorus::device {

// Starts HopperAttention on a device of compute capability 9.0. Tiles are cut by its own shape; `launch` holds their pointers.
template <class Element, int kHeadDim>
cudaError_t StartHopperAttention(const AttentionLaunch<Element>& launch, const DeviceTiles& tiles,
                                 cudaStream_t stream);

}  // namespace chorus::device
