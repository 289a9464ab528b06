#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/warp_attention.h"

namespace chorus::device {

// One tile of up to 64 packed queries and one kv head a thread block: streams over its spans with
// an online softmax and writes the output. Grid: [num_tiles, num_kv_heads]. For rows whose keys
// are few spans: those of prefixes and segments. A tile without spans gives zeros. No scaling and
// no window.
//
// A warp owns 16 queries; blocks of keys and values come by asynchronous copies while the one
// before is computed. What a query adds, and in which order, is its own keys in blocks of 64 from
// each interval's begin: the same whatever shares its tile.
template <class Element, int kHeadDim>
struct PrefillAttention {
  static constexpr int kThreads = 128;
  static constexpr int kTileQueries = 64;
  static constexpr int kQueryBytes = kTileQueries * kHeadDim * 2;
  static constexpr int kBlockBytes = kKeyBlock * kHeadDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + kNumStages * 2 * kBlockBytes;
  using Launch = AttentionLaunch<Element>;
  using Warp = WarpAttention<Element, kHeadDim, kKeyBlock / 8>;

  // The block of keys that comes next.
  struct Cursor {
    int span;   // index into spans; at tile.span_end: no more
    int begin;  // its first key
    KeySpan at;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int kv_head = BlockY();
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    Warp queries;
    queries.Start(LastKeysOf(launch, tile, warp * 16 + lane / 4));

    Cursor copied = Begin(launch, tile);
    if (copied.span < tile.span_end) {
      CopyQueries<Element, kHeadDim, kThreads>(launch, tile, kv_head, kTileQueries, shared);
      CopyBlock(launch, tile, kv_head, copied, shared, 0);
    }
    CopyAsyncCommit();
    Cursor now = copied;
    for (int stage = 0; now.span < tile.span_end; stage ^= 1) {
      Advance(launch, tile, copied);
      if (copied.span < tile.span_end) {
        CopyBlock(launch, tile, kv_head, copied, shared, stage ^ 1);
      }
      CopyAsyncCommit();
      CopyAsyncWait<1>();
      SyncThreads();
      if (now.span == tile.span_begin && now.begin == now.at.begin) {
        queries.LoadQueries(shared, warp * 16, lane);
      }
      const SharedAddress keys = KeysAt(shared, stage);
      const bool is_full = now.at.full_begin <= now.begin && now.begin < now.at.full_end;
      queries.Add(keys, keys + kBlockBytes, /*row=*/0, now.begin, now.at.end, is_full,
                  launch.softmax_scale * kLog2E, lane);
      SyncThreads();  // before the next copy overwrites what was read here
      now = copied;
    }
    CopyAsyncWait<0>();
    Write(launch, tile, kv_head, warp, lane, queries);
  }

  CHORUS_DEVICE static Cursor Begin(const Launch& launch, const Tile& tile) {
    Cursor cursor{tile.span_begin, 0, {}};
    if (cursor.span < tile.span_end) {
      cursor.at = LoadGlobal(launch.spans + cursor.span);
      cursor.begin = cursor.at.begin;
    }
    return cursor;
  }

  CHORUS_DEVICE static void Advance(const Launch& launch, const Tile& tile, Cursor& cursor) {
    cursor.begin += kKeyBlock;
    if (cursor.begin < cursor.at.end) return;
    if (++cursor.span == tile.span_end) return;
    cursor.at = LoadGlobal(launch.spans + cursor.span);
    cursor.begin = cursor.at.begin;
  }

  CHORUS_DEVICE static SharedAddress KeysAt(SharedAddress shared, int stage) {
    return shared + kQueryBytes + stage * 2 * kBlockBytes;
  }

  CHORUS_DEVICE static void CopyBlock(const Launch& launch, const Tile& tile, int kv_head,
                                      const Cursor& cursor, SharedAddress shared, int stage) {
    const SharedAddress keys = KeysAt(shared, stage);
    CopyKeys<Element, kHeadDim, kThreads>(launch, tile, kv_head, cursor.begin, cursor.at.end, keys,
                                          keys + kBlockBytes);
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const Tile& tile, int kv_head, int warp,
                                  int lane, const Warp& queries) {
    const int heads = launch.heads_per_kv_head;
    const int num_queries = (tile.row_end - tile.row_begin) * heads;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = SumOfQuad(queries.softmax.sum[half]);
      const int query = warp * 16 + lane / 4 + half * 8;
      if (query >= num_queries) continue;
      const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
      const int64_t row = tile.row_begin + query / heads;
      const int64_t row_head = row * launch.num_heads + kv_head * heads + query % heads;
      Element* out = launch.out + row_head * kHeadDim + 2 * (lane & 3);
#pragma unroll
      for (int d = 0; d < Warp::kDimTiles; ++d) {
        StoreGlobalPair(out + 8 * d, PackPair<Element>(queries.values[d][2 * half] * factor,
                                                       queries.values[d][2 * half + 1] * factor));
      }
      if (launch.log_sum_exp != nullptr && (lane & 3) == 0) {
        const float log_sum = (queries.softmax.max[half] + Log2(sum)) * kLn2;
        StoreGlobal(launch.log_sum_exp + row_head, sum > 0.0f ? log_sum : MinusInfinity());
      }
    }
  }
};

}  // namespace chorus::device
