#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/key_cursor.h"
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
  static constexpr int kKeyBlock = device::kKeyBlock;
  static constexpr int kQueryBytes = kTileQueries * kHeadDim * 2;
  static constexpr int kBlockBytes = kKeyBlock * kHeadDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + kNumStages * 2 * kBlockBytes;
  using Launch = AttentionLaunch<Element>;
  using Warp = WarpAttention<Element, kHeadDim, kKeyBlock / 8>;
  using Cursor = KeyCursor<kKeyBlock>;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int kv_head = BlockY();
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    Warp queries;
    queries.Start(LastKeysOf(launch, tile, warp * 16 + lane / 4));

    Cursor copied = Cursor::Begin(launch, tile);
    if (copied.span < tile.span_end) {
      CopyQueries<Element, kHeadDim, kThreads>(launch, tile, kv_head, kTileQueries, shared);
      CopyBlock(launch, tile, kv_head, copied, shared, 0);
    }
    CopyAsyncCommit();
    Cursor now = copied;
    for (int stage = 0; now.span < tile.span_end; stage ^= 1) {
      copied.Advance(launch, tile);
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
      queries.Add(keys, keys + kBlockBytes, /*row=*/0, now.begin, now.at.end, now.IsFull(),
                  launch.softmax_scale * kLog2E, lane);
      SyncThreads();  // before the next copy overwrites what was read here
      now = copied;
    }
    CopyAsyncWait<0>();
    WriteQueries(launch, tile, kv_head, warp * 16, lane, queries.values, queries.softmax);
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
};

}  // namespace chorus::device
