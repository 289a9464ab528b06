#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// Whether the kernels take this shape: head_dim 64 or 128, at most 16 heads a kv head.
bool CudaAttentionTakes(const AttentionShape& shape);

// How `own` and `fused` are to be cut. REQUIRES: CudaAttentionTakes(shape).
TileShape CudaOwnTileShape(const AttentionShape& shape);
TileShape CudaFusedTileShape(const AttentionShape& shape);

int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans);

// Starts the kernels on `stream`, at most three. A row's result depends on its own intervals,
// slots and kind only, bit for bit. No allocation and no waiting, so it can be captured in a graph.
// REQUIRES: CudaAttentionTakes(args.shape); no layer window.
cudaError_t LaunchSegmentAttention(const DeviceAttentionArgs& args, cudaStream_t stream);

}  // namespace chorus
