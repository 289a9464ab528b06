#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/device_args.h"

namespace chorus::device {

// Starts HopperAttention on a device of compute capability 9.0. Tiles are cut by its own shape;
// `launch` holds their pointers. k and v are [num_slots, num_kv_heads, head_dim]:
// cudaErrorInvalidValue if the tensor memory unit takes no map of them.
template <class Element, int kHeadDim>
cudaError_t StartHopperAttention(const AttentionLaunch<Element>& launch, const DeviceTiles& tiles,
                                 int32_t num_slots, cudaStream_t stream);

}  // namespace chorus::device
