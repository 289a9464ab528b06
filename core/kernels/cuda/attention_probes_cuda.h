#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// Once a layer, in order, after the layer's attention and on its stream: mass_sums, and of the
// layers and heads asked for `mass` and `mean_logits` (NaN for a unit of which the row sees no
// key). What one probe gets depends on its row, keys and units only, bit for bit.
cudaError_t LaunchReduceProbes(const DeviceProbes& probes, int32_t layer, cudaStream_t stream);

// After the last layer: mean_mass.
cudaError_t LaunchMeanProbes(const DeviceProbes& probes, cudaStream_t stream);

}  // namespace chorus
