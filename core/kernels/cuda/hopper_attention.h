#pragma once

#include <algorithm>
#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/hopper.h"
#include "core/kernels/cuda/key_cursor.h"

namespace chorus::device {

inline constexpr int kHopperKeyBlock = 128;
inline constexpr int kHopperBoxRows = 32;  // slots that one copy of the tensor memory unit brings
inline constexpr int kHopperShortKeys = 64;

// AttentionLaunch with the maps of k and v, [num_slots, num_kv_heads, head_dim] in boxes of
// [kHopperBoxRows, 1, 64].
template <class Element>
struct HopperLaunch : AttentionLaunch<Element> {
  TensorMap k_map;
  TensorMap v_map;
  int32_t num_tiles = 0;
  int32_t tiles_per_block = 1;
};

// Tiles for a thread block to do one after the other: more hide more of the latency where they
// begin, fewer spread the work better. No row's result depends on it. Eight blocks of long tiles a
// processor, one after the other, leave it idle for a sixteenth of the time at the end. Tiles that
// are all short take no longer than a block takes to begin: two blocks a processor.
inline int32_t HopperTilesPerBlock(int32_t num_tiles, int32_t num_kv_heads, int32_t num_processors,
                                   bool is_short) {
  if (!is_short) {
    const int64_t tiles = int64_t{num_tiles} * num_kv_heads / (num_processors * 8);
    return static_cast<int32_t>(std::clamp<int64_t>(tiles, 1, 4));
  }
  const int32_t num_blocks = std::max(num_processors * 2 / num_kv_heads, 1);  // of a kv head
  return std::min((num_tiles + num_blocks - 1) / num_blocks, 24);
}

// kRows rows of 64-element columns, each column with the 128-byte swizzle: what wgmma reads as
// K-major (queries, keys) or MN-major (values).
template <int kRows>
struct SwizzledRows {
  static constexpr int kRowBytes = 128;
  static constexpr int kColumnBytes = kRows * kRowBytes;
  static constexpr int kGroupBytes = 8 * kRowBytes;
  CHORUS_DEVICE static SharedAddress At(SharedAddress base, int row, int piece) {
    return base + piece / 8 * kColumnBytes + row * kRowBytes + (((piece ^ row) & 7) << 4);
  }
  // Elements [16 step, 16 step + 16) of the rows from `row` on, a multiple of 8.
  CHORUS_DEVICE static uint64_t KMajor(SharedAddress base, int row, int step) {
    return SwizzledMatrix(base + step / 4 * kColumnBytes + row * kRowBytes + step % 4 * 32,
                          /*leading=*/16, kGroupBytes);
  }
  // Rows [16 step, 16 step + 16), all columns: the rows are what is summed over.
  CHORUS_DEVICE static uint64_t MnMajor(SharedAddress base, int step) {
    return SwizzledMatrix(base + step * 16 * kRowBytes, kColumnBytes, kGroupBytes);
  }
};

// PrefillAttention for compute capability 9.0: tiles of up to 128 packed queries and one kv head.
// Grid: [num_tiles / tiles_per_block, rounded up; num_kv_heads]. A warpgroup of producers fills
// rings of blocks of keys and of values; two warpgroups of consumers, 64 queries each, multiply by
// wgmma. Barriers in shared memory hand the blocks over and back. A thread block does its tiles one
// after the other, and the producers are ahead: short tiles do not wait for their first keys.
//
// Softmax runs beside the tensor cores twice: the two warpgroups are independent of each other, and
// each computes the softmax of a block while the values of the block before are added (as in
// FlashAttention-3, Shah et al., 2024).
//
// What a query adds, and in which order, is its own keys in blocks of 128 from each interval's
// begin: the same whatever shares its tile.
template <class Element, int kHeadDim>
struct HopperAttention {
  static constexpr int kThreads = 3 * kWarpgroupSize;
  static constexpr int kTileQueries = 128;
  static_assert(kTileQueries <= PackedQueries::kMost);
  static constexpr int kKeyBlock = kHopperKeyBlock;
  static constexpr int kStages = kHeadDim == 64 ? 4 : 3;  // registers allow one block a processor
  static constexpr int kProducers = kWarpgroupSize;
  static constexpr int kConsumerWarps = 8;
  // Of a thread: together what the launch bounds give, 168 of each.
  static constexpr int kProducerRegisters = 56, kConsumerRegisters = 224;

  static constexpr int kPieces = kHeadDim / 8;  // 16-byte pieces of a row
  static constexpr int kSteps = kHeadDim / 16;  // of a wgmma along the head's dims
  static constexpr int kShortKeys = kHopperShortKeys;
  static constexpr int kQueryBytes = kTileQueries * kHeadDim * 2;
  static constexpr int kBlockBytes = kKeyBlock * kHeadDim * 2;
  static constexpr int kBarriersAt = kQueryBytes + 2 * kStages * kBlockBytes;
  static constexpr int kSharedBytes = kBarriersAt + 8 * (2 + 4 * kStages);
  using Launch = HopperLaunch<Element>;
  using Cursor = KeyCursor<kKeyBlock>;
  using Queries = SwizzledRows<kTileQueries>;
  using Keys = SwizzledRows<kKeyBlock>;

  // One of the two rings. Block i of the tile is in stage i % kStages.
  struct Ring {
    SharedAddress blocks;
    SharedAddress barriers;  // kStages of full stages, then of empty ones

    CHORUS_DEVICE SharedAddress Block(int i) const { return blocks + i % kStages * kBlockBytes; }
    CHORUS_DEVICE SharedAddress Full(int i) const { return barriers + i % kStages * 8; }
    CHORUS_DEVICE SharedAddress Empty(int i) const { return Full(i) + kStages * 8; }
    CHORUS_DEVICE void WaitFull(int i) const { WaitForPhase(Full(i), i / kStages & 1); }
    // A new stage is empty.
    CHORUS_DEVICE void WaitEmpty(int i) const { WaitForPhase(Empty(i), (i / kStages & 1) ^ 1); }
  };
  struct Shared {
    SharedAddress queries;
    SharedAddress queries_full, queries_empty;
    Ring keys, values;
  };

  struct TileRange {
    int begin, end;
  };
  // How far a thread has come: tiles with keys, and their blocks.
  struct Progress {
    int tile = 0;
    int block = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress base) {
    if constexpr (!kHasWarpgroups) {
      Trap();
    } else {
      const SharedAddress barriers = base + kBarriersAt;
      const Shared shared = {
          .queries = base,
          .queries_full = barriers,
          .queries_empty = barriers + 8,
          .keys = {base + kQueryBytes, barriers + 16},
          .values = {base + kQueryBytes + kStages * kBlockBytes, barriers + 16 + kStages * 16}};
      const int begin = BlockX() * launch.tiles_per_block;
      const int end = begin + launch.tiles_per_block;
      const TileRange tiles = {begin, end < launch.num_tiles ? end : launch.num_tiles};
      if (ThreadIndex() == 0) InitBarriers(shared);
      SyncThreads();
      if (ThreadIndex() < kProducers) {
        LowerRegisters<kProducerRegisters>();
        Produce(launch, tiles, BlockY(), shared);
      } else {
        RaiseRegisters<kConsumerRegisters>();
        Consume(launch, tiles, BlockY(), shared);
      }
    }
  }

  CHORUS_DEVICE static void InitBarriers(const Shared& shared) {
    InitMbarrier(shared.queries_full, kProducers);
    InitMbarrier(shared.queries_empty, kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      InitMbarrier(shared.keys.Full(i), kProducers);
      InitMbarrier(shared.keys.Empty(i), kConsumerWarps);
      InitMbarrier(shared.values.Full(i), kProducers);
      InitMbarrier(shared.values.Empty(i), kConsumerWarps);
    }
    FenceAsyncProxy();  // the copy unit sees them
  }

  CHORUS_DEVICE static void Produce(const Launch& launch, const TileRange& tiles, int kv_head,
                                    const Shared& shared) {
    Progress done;
    for (int t = tiles.begin; t < tiles.end; ++t) {
      ProduceTile(launch, LoadGlobal(launch.tiles + t), kv_head, shared, done);
    }
    // No copy outlives its thread.
    CopyAsyncCommit();
    CopyAsyncWait<0>();
  }

  CHORUS_DEVICE static void ProduceTile(const Launch& launch, const Tile& tile, int kv_head,
                                        const Shared& shared, Progress& done) {
    Cursor cursor = Cursor::Begin(launch, tile);
    if (cursor.span == tile.span_end) return;
    const int lane = ThreadIndex() % kWarpSize;
    int slot = SlotOf(launch, tile, cursor);
    const int first_block = done.block;
    for (; cursor.span < tile.span_end; ++done.block) {
      cursor.Advance(launch, tile);
      const int next_slot = SlotOf(launch, tile, cursor);  // comes while this one is waited for
      const int first_slot = ShuffleFrom(slot, 0);
      const bool is_box = VoteAll(slot >= 0 && slot == first_slot + lane);
      shared.keys.WaitEmpty(done.block);
      CopyRows(launch, launch.k, launch.k_map, kv_head, slot, is_box, shared.keys, done.block);
      if (done.block == first_block) {  // after the keys: the tile before may need its queries yet
        WaitForPhase(shared.queries_empty, (done.tile & 1) ^ 1);
        CopyQueries<Element, kHeadDim, kProducers, Queries>(launch, tile, kv_head, kTileQueries,
                                                            shared.queries);
        ArriveAfterCopies(shared.queries_full);
        ++done.tile;
      }
      shared.values.WaitEmpty(done.block);
      CopyRows(launch, launch.v, launch.v_map, kv_head, slot, is_box, shared.values, done.block);
      slot = next_slot;
    }
  }

  // Each warp of producers brings 32 keys of a block: the slot of the lane's, -1 if there is none.
  CHORUS_DEVICE static int SlotOf(const Launch& launch, const Tile& tile, const Cursor& cursor) {
    const int key = cursor.begin + ThreadIndex();
    if (cursor.span == tile.span_end || key >= cursor.at.end) return -1;
    return LoadGlobal(launch.slot_table + tile.table_begin + key);
  }

  // The warp's 32 rows of block i. `slot` is of row `lane`; negative: zeros, so that a weight of
  // zero times such a value is zero. A box: consecutive slots, all valid.
  CHORUS_DEVICE static void CopyRows(const Launch& launch, const Element* from,
                                     const TensorMap& map, int kv_head, int slot, bool is_box,
                                     const Ring& ring, int i) {
    const int lane = ThreadIndex() % kWarpSize;
    const int first_row = ThreadIndex() / kWarpSize * kWarpSize;
    if (is_box) {
      if (lane != 0) {
        Arrive(ring.Full(i));
        return;
      }
      ArriveExpectingBytes(ring.Full(i), kWarpSize * kHeadDim * 2);
      for (int column = 0; column < kHeadDim / 64; ++column) {
        CopyBox(Keys::At(ring.Block(i), first_row, 8 * column), map, 64 * column, kv_head, slot,
                ring.Full(i));
      }
      return;
    }
    constexpr int kRowsAtOnce = kWarpSize / kPieces;
#pragma unroll 4
    for (int first = 0; first < kWarpSize; first += kRowsAtOnce) {
      const int row = first + lane / kPieces, piece = lane % kPieces;
      const int64_t row_slot = ShuffleFrom(slot, row);
      const bool is_valid = row_slot >= 0;
      const int64_t offset =
          ((is_valid ? row_slot : 0) * launch.num_kv_heads + kv_head) * kHeadDim + piece * 8;
      CopyAsync16(Keys::At(ring.Block(i), first_row + row, piece), from + offset, is_valid);
    }
    ArriveAfterCopies(ring.Full(i));
  }

  // What a thread of a consumer warpgroup holds of its 64 queries.
  struct Output {
    float values[kHeadDim / 8][4];
    OnlineSoftmax softmax;
  };
  // And of the block in work, or its first 8 kKeyTiles keys: logits, which become weights.
  template <int kKeyTiles>
  struct Weights {
    float logits[kKeyTiles][4];
    uint32_t packed[kKeyTiles / 2][4];

    CHORUS_DEVICE void StartLogits(const Shared& shared, int first_query, int i) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        WgmmaShared<Element>(logits, Queries::KMajor(shared.queries, first_query, step),
                             Keys::KMajor(shared.keys.Block(i), 0, step), step > 0);
      }
      WgmmaCommit();
    }

    CHORUS_DEVICE void StartValues(const Shared& shared, int i, Output& output) const {
#pragma unroll
      for (int step = 0; step < kKeyTiles / 2; ++step) {
        WgmmaRegisters<Element>(output.values, packed[step],
                                Keys::MnMajor(shared.values.Block(i), step), true);
      }
      WgmmaCommit();
    }

    CHORUS_DEVICE void Update(const Cursor& cursor, const LastKeys& last, float scale, int lane,
                              OnlineSoftmax& softmax, float (&corrections)[2]) {
      if (!cursor.IsFull()) HideKeys(logits, last, cursor.begin, cursor.at.end, lane);
      UpdateSoftmax(logits, scale, softmax, corrections);
    }

    // The keys' columns of D are those of A.
    CHORUS_DEVICE void Pack() {
#pragma unroll
      for (int step = 0; step < kKeyTiles / 2; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float(&tile)[4] = logits[2 * step + i / 2];
          packed[step][i] = PackPair<Element>(tile[i % 2 * 2], tile[i % 2 * 2 + 1]);
        }
      }
    }
  };

  // The next tile and its first span come while the output of this one is written.
  CHORUS_DEVICE static void Consume(const Launch& launch, const TileRange& tiles, int kv_head,
                                    const Shared& shared) {
    const int thread = ThreadIndex() - kProducers, lane = thread % kWarpSize;
    const int warp_query = thread / kWarpSize * 16;
    Progress done;
    Tile tile = LoadGlobal(launch.tiles + tiles.begin);
    Cursor cursor = Cursor::Begin(launch, tile);
    for (int t = tiles.begin; t < tiles.end; ++t) {
      Output output;
      Clear(output.values);
      output.softmax = {{MinusInfinity(), MinusInfinity()}, {0.0f, 0.0f}};
      if (tile.span_begin < tile.span_end) {
        if (IsShort(launch, tile, cursor)) {
          AddBlocks<kShortKeys / 8>(launch, tile, cursor, shared, done, output);
        } else {
          AddBlocks<kKeyBlock / 8>(launch, tile, cursor, shared, done, output);
        }
        ++done.tile;
      }
      const Tile next = LoadGlobal(launch.tiles + (t + 1 < tiles.end ? t + 1 : t));
      cursor = Cursor::Begin(launch, next);
      WriteQueries(launch, tile, kv_head, warp_query, lane, output.values, output.softmax);
      tile = next;
    }
  }

  // Whether no block of the tile has keys past its first half, as with short segments. Then that
  // half is not computed. Its weights would be zeros: a row's bits are the same.
  CHORUS_DEVICE static bool IsShort(const Launch& launch, const Tile& tile, const Cursor& first) {
    if (first.at.end - first.at.begin > kShortKeys) return false;
    for (int i = tile.span_begin + 1; i < tile.span_end; ++i) {
      const KeySpan span = LoadGlobal(launch.spans + i);
      if (span.end - span.begin > kShortKeys) return false;
    }
    return true;
  }

  // All blocks of a tile, of which there is at least one: the cursor's.
  template <int kKeyTiles>
  CHORUS_DEVICE static void AddBlocks(const Launch& launch, const Tile& tile, Cursor cursor,
                                      const Shared& shared, Progress& done, Output& output) {
    const int thread = ThreadIndex() - kProducers, lane = thread % kWarpSize;
    const int warpgroup_query = thread / kWarpgroupSize * 64;
    const LastKeys last = LastKeysOf(launch, tile, thread / kWarpSize * 16 + lane / 4);
    const float scale = launch.softmax_scale * kLog2E;
    Weights<kKeyTiles> weights;
    float corrections[2];
    int i = done.block;
    WaitForPhase(shared.queries_full, done.tile & 1);
    shared.keys.WaitFull(i);
    BeforeWgmma();
    weights.StartLogits(shared, warpgroup_query, i);
    WgmmaWait<0>();
    WgmmaResult(weights.logits);
    ArriveOfWarp(shared.keys.Empty(i), lane);
    if (cursor.IsLast(tile)) ArriveOfWarp(shared.queries_empty, lane);
    weights.Update(cursor, last, scale, lane, output.softmax, corrections);
    bool has_values = false;  // whether values i - 1 are being added
    for (cursor.Advance(launch, tile); cursor.span < tile.span_end; cursor.Advance(launch, tile)) {
      shared.keys.WaitFull(i + 1);
      FinishValues(shared, i, has_values, corrections, output);
      has_values = true;
      weights.Pack();
      BeforeWgmma();
      weights.StartLogits(shared, warpgroup_query, i + 1);
      weights.StartValues(shared, i, output);
      WgmmaWait<1>();
      WgmmaResult(weights.logits);
      ArriveOfWarp(shared.keys.Empty(i + 1), lane);
      if (cursor.IsLast(tile)) ArriveOfWarp(shared.queries_empty, lane);
      weights.Update(cursor, last, scale, lane, output.softmax, corrections);
      ++i;
    }
    FinishValues(shared, i, has_values, corrections, output);
    weights.Pack();
    BeforeWgmma();
    weights.StartValues(shared, i, output);
    WgmmaWait<0>();
    WgmmaResult(output.values);
    ArriveOfWarp(shared.values.Empty(i), lane);
    done.block = i + 1;
  }

  // Once values i are there: values i - 1, if any, have been added and are given back, and the sum
  // is brought to the maximum that the weights of block i are of. The wait for them stands behind
  // the loop of an mbarrier: ptxas would move it above the exponentials, which are to run beside
  // them.
  CHORUS_DEVICE static void FinishValues(const Shared& shared, int i, bool has_values,
                                         const float (&corrections)[2], Output& output) {
    shared.values.WaitFull(i);
    WgmmaWait<0>();
    WgmmaResult(output.values);
    if (!has_values) return;
    ArriveOfWarp(shared.values.Empty(i - 1), ThreadIndex() % kWarpSize);
    Rescale(output.values, corrections);
  }

  // Rows copied by threads, and registers, are seen by wgmma.
  CHORUS_DEVICE static void BeforeWgmma() {
    FenceAsyncProxy();
    WgmmaFence();
  }

  // The warp has waited for the wgmma that read the stage.
  CHORUS_DEVICE static void ArriveOfWarp(SharedAddress barrier, int lane) {
    if (lane == 0) Arrive(barrier);
  }
};

}  // namespace chorus::device
