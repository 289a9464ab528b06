#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"

namespace chorus::device {

// Walks the spans of a tile in blocks of kBlock keys, from each span's begin.
template <int kBlock>
struct KeyCursor {
  int span;   // index into spans; at tile.span_end: no more
  int begin;  // the block's first key
  KeySpan at;

  template <class Element>
  CHORUS_DEVICE static KeyCursor Begin(const AttentionLaunch<Element>& launch, const Tile& tile) {
    KeyCursor cursor{tile.span_begin, 0, {}};
    if (cursor.span < tile.span_end) {
      cursor.at = LoadGlobal(launch.spans + cursor.span);
      cursor.begin = cursor.at.begin;
    }
    return cursor;
  }

  template <class Element>
  CHORUS_DEVICE void Advance(const AttentionLaunch<Element>& launch, const Tile& tile) {
    begin += kBlock;
    if (begin < at.end) return;
    if (++span == tile.span_end) return;
    at = LoadGlobal(launch.spans + span);
    begin = at.begin;
  }

  CHORUS_DEVICE bool IsLast(const Tile& tile) const {
    return begin + kBlock >= at.end && span + 1 == tile.span_end;
  }

  // Whether every query of the tile sees every key of the block.
  CHORUS_DEVICE bool IsFull() const { return at.full_begin <= begin && begin < at.full_end; }
};

// Writes what 16 queries of a tile, from first_query on, got: values over their sums, and the
// log-sum-exp. The thread's are rows lane / 4 and lane / 4 + 8; no keys: zeros, minus infinity.
template <class Element, int kDimTiles>
CHORUS_DEVICE void WriteQueries(const AttentionLaunch<Element>& launch, const Tile& tile,
                                int kv_head, int first_query, int lane,
                                const float (&values)[kDimTiles][4], const OnlineSoftmax& softmax) {
  static_assert(kDimTiles % 4 == 0);
  const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
  const int num_queries = (tile.row_end - tile.row_begin) * packed.heads;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = SumOfQuad(softmax.sum[half]);
    const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
    const int query = first_query + lane / 4 + half * 8;
    const bool is_valid = query < num_queries;
    const int64_t row = tile.row_begin + packed.RowOf(query);
    const int64_t row_head = row * launch.num_heads + kv_head * packed.heads + packed.HeadOf(query);
    Element* out = launch.out + row_head * (8 * kDimTiles) + 8 * (lane & 3);
#pragma unroll
    for (int d = 0; d < kDimTiles; d += 4) {
      uint32_t pairs[4];  // of four groups of 8 dims, then of the one that the lane stores
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&tile_values)[4] = values[d + i];
        pairs[i] =
            PackPair<Element>(tile_values[2 * half] * factor, tile_values[2 * half + 1] * factor);
      }
      TransposeInQuad(pairs, lane);
      if (is_valid) StoreGlobalPairs(out + 8 * d, pairs);
    }
    if (launch.log_sum_exp != nullptr && is_valid && (lane & 3) == 0) {
      const float log_sum = (softmax.max[half] + Log2(sum)) * kLn2;
      StoreGlobal(launch.log_sum_exp + row_head, sum > 0.0f ? log_sum : MinusInfinity());
    }
  }
}

}  // namespace chorus::device
