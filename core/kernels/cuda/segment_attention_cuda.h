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
  // Of the fused rows that are looked at, q k * softmax_scale of the keys that row r sees: to
  // logits + logit_offsets[r], [num_heads, index of r's token + 1]. It changes no output.
  float* logits = nullptr;
  const int64_t* logit_offsets = nullptr;  // [num_rows], -1: not looked at; null: no row is
  CudaTiles own;                           // rows of prefixes and segments
  CudaTiles fused;                         // rows that see everything: suffix and generated
  float* workspace = nullptr;              // CudaWorkspaceFloats of them, for the spans of `fused`
};

// Whether the kernels take this shape: head_dim 64 or 128, at most 16 heads a kv head.
bool CudaAttentionTakes(const AttentionShape& shape);

// How `own` and `fused` are to be cut. REQUIRES: CudaAttentionTakes(shape).
TileShape CudaOwnTileShape(const AttentionShape& shape);
TileShape CudaFusedTileShape(const AttentionShape& shape);

int64_t CudaWorkspaceFloats(const AttentionShape& shape, int32_t num_spans);

// Starts the kernels on `stream`, at most three. A row's result depends on its own intervals,
// slots and kind only, bit for bit. No allocation and no waiting, so it can be captured in a graph.
// REQUIRES: CudaAttentionTakes(args.shape); no layer window.
cudaError_t LaunchSegmentAttention(const CudaAttentionArgs& args, cudaStream_t stream);

// What the kernels above do not take: any even head_dim up to 256, any number of heads a kv head,
// layers with a window. Slow: keys one after the other, no tensor cores.
bool CudaPlainAttentionTakes(const AttentionShape& shape);

// How rows are to be cut for it, by PlanTiles for the layer's window.
TileShape CudaPlainTileShape();

// Starts one kernel over the rows of `tiles`, own and fused ones; `own`, `fused` and `workspace` of
// `args` are not read. Logits are given for rows of both kinds; if args.out is null nothing else
// is, so that they can be had of rows that another kernel computes. As deterministic as above, and
// a tile without rows is padding. REQUIRES: CudaPlainAttentionTakes(args.shape).
cudaError_t LaunchPlainAttention(const CudaAttentionArgs& args, const CudaTiles& tiles,
                                 cudaStream_t stream);

}  // namespace chorus
