#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// Whether the kernels take this shape: head_dim 64 or 128, at most 16 heads a kv head.
bool CudaAttentionTakes(const AttentionShape& shape);

// Which kernel a device gets for the rows of prefixes and segments: mma.sync (compute
// capability 8.0 and later), or wgmma and tensor copies (9.0).
enum class CudaAttentionKind { kAmpere, kHopper };
cudaError_t FindCudaAttentionKind(int device, CudaAttentionKind& kind);

// How `own` and `fused` are to be cut. REQUIRES: CudaAttentionTakes(shape).
TileShape CudaOwnTileShape(const AttentionShape& shape, CudaAttentionKind kind);
TileShape CudaFusedTileShape(const AttentionShape& shape);

int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans);

// Starts the kernels on `stream`, at most three. A row's result depends on its own intervals,
// slots and kind only, bit for bit. No allocation and no waiting, so it can be captured in a graph.
// Of kHopper: cudaErrorInvalidValue if the tensor memory unit takes no map of k or v.
// REQUIRES: CudaAttentionTakes(args.shape); no layer window; `own` was cut for `kind`, and kHopper
// is the kind of the stream's device.
cudaError_t LaunchSegmentAttention(const DeviceAttentionArgs& args, CudaAttentionKind kind,
                                   cudaStream_t stream);

// What the kernels above do not take: any even head_dim up to 256, any number of heads a kv head,
// layers with a window. Slow: keys one after the other, no tensor cores.
bool CudaPlainAttentionTakes(const AttentionShape& shape);

// How rows are to be cut for it, by PlanTiles for the layer's window.
TileShape CudaPlainTileShape();

// Starts one kernel over the rows of `tiles`, own and fused ones; `own`, `fused` and `workspace` of
// `args` are not read. Logits are given for rows of both kinds; if args.out is null nothing else
// is, so that they can be had of rows that another kernel computes. As deterministic as above, and
// a tile without rows is padding. REQUIRES: CudaPlainAttentionTakes(args.shape).
cudaError_t LaunchPlainAttention(const DeviceAttentionArgs& args, const DeviceTiles& tiles,
                                 cudaStream_t stream);

}  // namespace chorus
