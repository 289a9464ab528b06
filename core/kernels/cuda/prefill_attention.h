#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"

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
  static constexpr int kSteps = kHeadDim / 16;     // mma steps along the head's dims
  static constexpr int kKeyTiles = kKeyBlock / 8;  // columns of logits
  static constexpr int kDimTiles = kHeadDim / 8;   // columns of values
  using Launch = AttentionLaunch<Element>;

  // The block of keys that comes next.
  struct Cursor {
    int span;   // index into spans; at tile.span_end: no more
    int begin;  // its first key
    KeySpan at;
  };

  struct Thread {
    uint32_t q[kSteps][4];
    float values[kDimTiles][4];
    OnlineSoftmax softmax;
    LastKeys last;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int kv_head = BlockY();
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    Thread thread;
    Clear(thread.values);
    thread.softmax = {{MinusInfinity(), MinusInfinity()}, {0.0f, 0.0f}};
    thread.last = LastKeysOf(launch, tile, warp * 16 + lane / 4);

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
        LoadQueries(shared, warp, lane, thread);
      }
      Compute(launch, now, shared, stage, lane, thread);
      SyncThreads();  // before the next copy overwrites what was read here
      now = copied;
    }
    CopyAsyncWait<0>();
    Write(launch, tile, kv_head, warp, lane, thread);
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

  CHORUS_DEVICE static void LoadQueries(SharedAddress shared, int warp, int lane, Thread& thread) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      LoadMatrix4(thread.q[step], RowsFirst<kHeadDim>(shared, warp * 16, 2 * step, lane));
    }
  }

  // One block of keys and values for the warp's queries.
  CHORUS_DEVICE static void Compute(const Launch& launch, const Cursor& now, SharedAddress shared,
                                    int stage, int lane, Thread& thread) {
    const SharedAddress keys = KeysAt(shared, stage);
    float logits[kKeyTiles][4];
    Clear(logits);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        uint32_t b[4];
        LoadMatrix4(b, PiecesFirst<kHeadDim>(keys, 8 * j, 2 * step, lane));
        Mma<Element>(logits[j], thread.q[step], b[0], b[1]);
        Mma<Element>(logits[j + 1], thread.q[step], b[2], b[3]);
      }
    }
    const bool is_full = now.at.full_begin <= now.begin && now.begin < now.at.full_end;
    if (!is_full) HideKeys(logits, thread.last, now.begin, now.at.end, lane);
    float corrections[2];
    UpdateSoftmax(logits, launch.softmax_scale * kLog2E, thread.softmax, corrections);
    Rescale(thread.values, corrections);
    AddValues(logits, keys + kBlockBytes, lane, thread);
  }

  // values += weights V. The weights' columns are the keys: two of C's tiles are one A operand.
  CHORUS_DEVICE static void AddValues(const float (&weights)[kKeyTiles][4], SharedAddress values,
                                      int lane, Thread& thread) {
#pragma unroll
    for (int j = 0; j < kKeyTiles; j += 2) {
      const uint32_t a[4] = {PackPair<Element>(weights[j][0], weights[j][1]),
                             PackPair<Element>(weights[j][2], weights[j][3]),
                             PackPair<Element>(weights[j + 1][0], weights[j + 1][1]),
                             PackPair<Element>(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
      for (int d = 0; d < kDimTiles; d += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, RowsFirst<kHeadDim>(values, 8 * j, d, lane));
        Mma<Element>(thread.values[d], a, b[0], b[1]);
        Mma<Element>(thread.values[d + 1], a, b[2], b[3]);
      }
    }
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const Tile& tile, int kv_head, int warp,
                                  int lane, const Thread& thread) {
    const int heads = launch.heads_per_kv_head;
    const int num_queries = (tile.row_end - tile.row_begin) * heads;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = SumOfQuad(thread.softmax.sum[half]);
      const int query = warp * 16 + lane / 4 + half * 8;
      if (query >= num_queries) continue;
      const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
      const int64_t row = tile.row_begin + query / heads;
      const int64_t row_head = row * launch.num_heads + kv_head * heads + query % heads;
      Element* out = launch.out + row_head * kHeadDim + 2 * (lane & 3);
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) {
        StoreGlobalPair(out + 8 * d, PackPair<Element>(thread.values[d][2 * half] * factor,
                                                       thread.values[d][2 * half + 1] * factor));
      }
      if (launch.log_sum_exp != nullptr && (lane & 3) == 0) {
        const float log_sum = (thread.softmax.max[half] + Log2(sum)) * kLn2;
        StoreGlobal(launch.log_sum_exp + row_head, sum > 0.0f ? log_sum : MinusInfinity());
      }
    }
  }
};

}  // namespace chorus::device
