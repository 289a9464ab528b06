#pragma once

#include <cstdint>

#include "core/kernels/segment_attention.h"
#include "core/kernels/tile_plan.h"

// Which shapes the attention kernels of a device take and what they need, whatever device it is.
namespace chorus {

namespace device {
inline constexpr int kSpanQueries = 16;       // packed queries of a tile of SpanAttention, at most
inline constexpr int kPlainMaxHeadDim = 256;  // of PlainAttention
}  // namespace device

inline int32_t HeadsPerKvHead(const AttentionShape& shape) {
  return shape.num_heads / shape.num_kv_heads;
}

// Whether SegmentAttention takes this shape.
inline bool SegmentAttentionTakes(const AttentionShape& shape) {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && HeadsPerKvHead(shape) <= device::kSpanQueries;
}

// Its workspace for so many spans of fused rows.
inline int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return int64_t{num_spans} * shape.num_kv_heads * device::kSpanQueries * (shape.head_dim + 2);
}

// Whether PlainAttention takes this shape.
inline bool PlainAttentionTakes(const AttentionShape& shape) {
  return shape.head_dim > 0 && shape.head_dim % 2 == 0 &&
         shape.head_dim <= device::kPlainMaxHeadDim && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0;
}

// How rows are to be cut for it. A span is longer than any interval, so that an interval is one.
inline constexpr TileShape kPlainTileShape = {.tile_rows = 1, .key_block = 1, .span_keys = 1 << 24};

}  // namespace chorus
