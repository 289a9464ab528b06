#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// Embed, AddBias and GatherRows of DeviceKernels; each starts one kernel on `stream`.
cudaError_t LaunchEmbed(DeviceType type, const void* table, const int32_t* token_ids,
                        int32_t num_rows, int32_t size, float* residual, cudaStream_t stream);
cudaError_t LaunchAddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                          int32_t size, cudaStream_t stream);
cudaError_t LaunchGatherRows(const void* from, const int32_t* rows, int32_t num_rows,
                             int32_t row_bytes, void* to, cudaStream_t stream);

}  // namespace chorus
