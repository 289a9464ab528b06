#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/segment_attention.h"
#include "core/kernels/tile_plan.h"

namespace chorus {

enum class CudaType { kBFloat16, kFloat16 };

// The tiles of one step on the device, made by PlanTiles of the shapes below.
struct CudaTiles {
  const Tile* tiles = nullptr;
  int32_t num_tiles = 0;
  const KeySpan* spans = nullptr;
  int32_t num_spans = 0;
};

// One layer's attention over a ragged batch, all of it in device memory: arrays begin at multiples
// of 16 bytes. Every row of the step is in `own` or in `fused`.
struct CudaAttentionArgs {
  CudaType type = CudaType::kBFloat16;
  AttentionShape shape;
  const void* q = nullptr;  // [num_rows, num_heads, head_dim], RoPE applied
  const void* k = nullptr;  // [num_slots, num_kv_heads, head_dim]; holds the step's own rows too
  const void* v = nullptr;  // like k
  void* out = nullptr;      // [num_rows, num_heads, head_dim]
  float* log_sum_exp = nullptr;  // [num_rows, num_heads] natural log, or null
  const int32_t* slot_table = nullptr;
  const SegmentScaling* scalings = nullptr;
  CudaTiles own;               // rows of prefixes and segments
  CudaTiles fused;             // rows that see everything: suffix and generated
  float* workspace = nullptr;  // CudaWorkspaceFloats of them, for the spans of `fused`
};

// Whether the kernels take this shape: head_dim 64 or 128, at most 16 heads a kv head.
bool CudaAttentionTakes(const AttentionShape& shape);

// Which kernel a device gets for the rows of prefixes and segments: mma.sync (compute
// capability 8.0 and later), or wgmma and tensor copies (9.0).
enum class CudaAttentionKind { kAmpere, kHopper };
cudaError_t FindCudaAttentionKind(int device, CudaAttentionKind& kind);

// How `own` and `fused` are to be cut. REQUIRES: CudaAttentionTakes(shape).
TileShape CudaOwnTileShape(const AttentionShape& shape, CudaAttentionKind kind);
TileShape CudaFusedTileShape(const AttentionShape& shape);

int64_t CudaWorkspaceFloats(const AttentionShape& shape, int32_t num_spans);

// Starts the kernels on `stream`, at most three. A row's result depends on its own intervals,
// slots and kind only, bit for bit. No allocation and no waiting, so it can be captured in a graph.
// REQUIRES: CudaAttentionTakes(args.shape); no layer window; `own` was cut for `kind`, and kHopper
// is the kind of the stream's device.
cudaError_t LaunchSegmentAttention(const CudaAttentionArgs& args, CudaAttentionKind kind,
                                   cudaStream_t stream);

}  // namespace chorus
