#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

int64_t CudaSamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices, int32_t num_changed_rows,
                                   int32_t vocab_size);

// Combines, adjusts and chooses, in two to five kernels on `stream`. A choice's result depends on
// its own rows and parameters and on vocab_size only, bit for bit. No allocation and no waiting, so
// it can be captured in a graph.
cudaError_t LaunchSampling(const DeviceSamplingArgs& args, cudaStream_t stream);

}  // namespace chorus
