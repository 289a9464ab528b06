#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/softmax_parts.h"
#include "core/kernels/tile_plan.h"

// What the attention kernels of a layer read and write, and the steps that they share.
namespace chorus::device {

inline constexpr int kKeyBlock = 64;
inline constexpr int kNumStages = 2;  // blocks of keys and values in shared memory

// Pointers are device memory; every array begins at a multiple of 16 bytes.
template <class Element>
struct AttentionLaunch {
  const Element* q = nullptr;           // [num_rows, num_heads, head_dim], RoPE applied
  const Element* k = nullptr;           // [num_slots, num_kv_heads, head_dim]
  const Element* v = nullptr;           // like k
  const Tile* tiles = nullptr;          // [grid x of PrefillAttention and MergeSpans]
  const KeySpan* spans = nullptr;       // [grid x of SpanAttention]
  const int32_t* slot_table = nullptr;  // where Tile::table_begin points
  const SegmentScaling* scalings = nullptr;
  Element* out = nullptr;        // [num_rows, num_heads, head_dim]
  float* log_sum_exp = nullptr;  // [num_rows, num_heads] natural log, or null
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t heads_per_kv_head = 0;
  float softmax_scale = 0.0f;
  int32_t head_dim = 0;  // of PlainAttention only; the others are made for one
  // Of SpanAttention and PlainAttention: q k * softmax_scale of row r and the keys that it sees go
  // to logits + logit_offsets[r], [num_heads, index of r's token + 1]; nowhere if that is negative.
  float* logits = nullptr;
  const int64_t* logit_offsets = nullptr;  // [num_rows], or null: no row's are wanted
  // Of SpanAttention, for MergeSpans; logits in units of log 2.
  float* span_values =
      nullptr;                // [num_spans, num_kv_heads, kSpanQueries, head_dim], not normalised
  float* span_max = nullptr;  // [num_spans, num_kv_heads, kSpanQueries]
  float* span_sum = nullptr;  // like span_max
};

// Rows of 16-bit elements in shared memory, in pieces of 16 bytes. Piece c of row r stands at piece
// c ^ (r % 8), so that eight rows of one column of pieces lie in all banks.
template <int kHeadDim>
struct SharedRows {
  static constexpr int kPieces = kHeadDim / 8;
  static constexpr int kRowBytes = kHeadDim * 2;
  CHORUS_DEVICE static SharedAddress At(SharedAddress base, int row, int piece) {
    return base + row * kRowBytes + ((piece ^ (row & 7)) << 4);
  }
};

// The addresses that a lane gives to LoadMatrix4, of two 8-row groups by two pieces:
// A operand (and V transposed): matrices are rows 0-7, rows 8-15, then the next piece.
// B operand (keys): rows 0-7 of two pieces, then rows 8-15.
template <int kHeadDim>
CHORUS_DEVICE SharedAddress RowsFirst(SharedAddress base, int row, int piece, int lane) {
  return SharedRows<kHeadDim>::At(base, row + (lane & 15), piece + (lane >> 4));
}
template <int kHeadDim>
CHORUS_DEVICE SharedAddress PiecesFirst(SharedAddress base, int row, int piece, int lane) {
  return SharedRows<kHeadDim>::At(base, row + (lane & 7) + ((lane >> 4) << 3),
                                  piece + ((lane >> 3) & 1));
}

// Packed queries of a tile and a kv head: query p is of the tile's row p / heads, and of head
// p % heads of the kv head's. A division costs some forty instructions, a product one; it is exact
// for queries below kMost and at most kMost heads.
struct PackedQueries {
  static constexpr int kMost = 128;
  int heads;
  int inverse;

  CHORUS_DEVICE static PackedQueries Of(int heads) { return {heads, (1 << 16) / heads + 1}; }
  CHORUS_DEVICE int RowOf(int query) const { return query * inverse >> 16; }
  CHORUS_DEVICE int HeadOf(int query) const { return query - RowOf(query) * heads; }
};

// Starts the copies of packed queries [0, num_slots) of a tile; those past the tile's are zeros.
// A thread copies one piece of several queries. REQUIRES: num_slots a multiple of those that all
// threads copy at once.
template <class Element, int kHeadDim, int kThreads, class Rows = SharedRows<kHeadDim>>
CHORUS_DEVICE void CopyQueries(const AttentionLaunch<Element>& launch, const Tile& tile,
                               int kv_head, int num_slots, SharedAddress to) {
  constexpr int kPieces = kHeadDim / 8, kAtOnce = kThreads / kPieces;
  const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
  const int num_queries = (tile.row_end - tile.row_begin) * packed.heads;
  const int first = ThreadIndex() / kPieces, piece = ThreadIndex() % kPieces;
  const int64_t row_head = int64_t{tile.row_begin} * launch.num_heads + kv_head * packed.heads;
  const Element* from = launch.q + row_head * kHeadDim + piece * 8;
#pragma unroll 4
  for (int i = 0; i < num_slots / kAtOnce; ++i) {
    const int query = first + i * kAtOnce;
    const bool is_valid = query < num_queries;
    const int of = is_valid ? query : 0;
    const int offset = (packed.RowOf(of) * launch.num_heads + packed.HeadOf(of)) * kHeadDim;
    CopyAsync16(Rows::At(to, query, piece), from + offset, is_valid);
  }
}

// Slots of the keys of a block that one thread copies pieces of: all are loaded at once.
template <int kHeadDim, int kThreads>
struct KeySlots {
  static constexpr int kStep = kThreads / SharedRows<kHeadDim>::kPieces;  // from row to row
  static constexpr int kRows = kKeyBlock / kStep;
  int32_t of[kRows];

  // Of keys [begin, begin + kKeyBlock); at or past `end`: the slot of `begin`, which is not used.
  template <class Element>
  CHORUS_DEVICE void Load(const AttentionLaunch<Element>& launch, const Tile& tile, int begin,
                          int end) {
    const int first = begin + ThreadIndex() / SharedRows<kHeadDim>::kPieces;
    const int32_t* table = launch.slot_table + tile.table_begin;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int key = first + i * kStep;
      of[i] = LoadGlobal(table + (key < end ? key : begin));
    }
  }
};

// Starts the copies of keys and values [begin, begin + kKeyBlock) of one kv head; those at or past
// `end` are zeros, so that a weight of zero times such a value is zero.
template <class Element, int kHeadDim, int kThreads>
CHORUS_DEVICE void CopyKeys(const AttentionLaunch<Element>& launch,
                            const KeySlots<kHeadDim, kThreads>& slots, int kv_head, int begin,
                            int end, SharedAddress keys, SharedAddress values) {
  using Rows = SharedRows<kHeadDim>;
  using Slots = KeySlots<kHeadDim, kThreads>;
  const int piece = ThreadIndex() % Rows::kPieces;
#pragma unroll
  for (int i = 0; i < Slots::kRows; ++i) {
    const int row = ThreadIndex() / Rows::kPieces + i * Slots::kStep;
    const bool is_valid = begin + row < end;
    const int64_t slot = slots.of[i];
    const int64_t offset = (slot * launch.num_kv_heads + kv_head) * kHeadDim + piece * 8;
    CopyAsync16(Rows::At(keys, row, piece), launch.k + offset, is_valid);
    CopyAsync16(Rows::At(values, row, piece), launch.v + offset, is_valid);
  }
}
template <class Element, int kHeadDim, int kThreads>
CHORUS_DEVICE void CopyKeys(const AttentionLaunch<Element>& launch, const Tile& tile, int kv_head,
                            int begin, int end, SharedAddress keys, SharedAddress values) {
  KeySlots<kHeadDim, kThreads> slots;
  slots.Load(launch, tile, begin, end);
  CopyKeys(launch, slots, kv_head, begin, end, keys, values);
}

// Queries of one thread's two rows of C, g and g + 8 of the warp's 16: the last key that each may
// see, -1 for one past the tile's queries.
struct LastKeys {
  int of[2];
};

template <class Element>
CHORUS_DEVICE LastKeys LastKeysOf(const AttentionLaunch<Element>& launch, const Tile& tile,
                                  int first_query) {
  const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
  const int num_queries = (tile.row_end - tile.row_begin) * packed.heads;
  LastKeys last;
  for (int half = 0; half < 2; ++half) {
    const int query = first_query + half * 8;
    last.of[half] = query < num_queries ? tile.query_begin + packed.RowOf(query) : -1;
  }
  return last;
}

// Running maximum and sum of one thread's two rows; logits in units of log 2. The sum is over the
// thread's own columns until SumOfQuad.
struct OnlineSoftmax {
  float max[2];
  float sum[2];
};

CHORUS_DEVICE float MaxOfQuad(float value) {
  value = Max(value, ShuffleXor(value, 1));
  return Max(value, ShuffleXor(value, 2));
}
CHORUS_DEVICE float SumOfQuad(float value) {
  value += ShuffleXor(value, 1);
  return value + ShuffleXor(value, 2);
}

// Word i of a quad's lane t becomes word t of its lane i.
CHORUS_DEVICE void TransposeInQuad(uint32_t (&words)[4], int lane) {
#pragma unroll
  for (int bit = 1; bit <= 2; ++bit) {
    const bool is_upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & bit) != 0) continue;
      uint32_t &low = words[i], &high = words[i | bit];
      const auto got =
          static_cast<uint32_t>(ShuffleXor(static_cast<int32_t>(is_upper ? low : high), bit));
      (is_upper ? low : high) = got;
    }
  }
}

// Logits of 16 queries and 8 kTiles keys become weights; returns in `corrections` what the values
// so far are to be multiplied by. A block of which a row sees no key changes nothing of that row.
template <int kTiles>
CHORUS_DEVICE void UpdateSoftmax(float (&logits)[kTiles][4], float scale_log2,
                                 OnlineSoftmax& softmax, float (&corrections)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float max = MinusInfinity();
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      max = Max(max, Max(logits[j][2 * half], logits[j][2 * half + 1]));
    }
    max = Max(softmax.max[half], MaxOfQuad(max) * scale_log2);
    // Only where no key was seen yet: any finite reference gives weights of zero then.
    const float reference = max == MinusInfinity() ? 0.0f : max;
    corrections[half] = Exp2(softmax.max[half] - reference);
    softmax.max[half] = max;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& logit = logits[j][2 * half + i];
        logit = Exp2(logit * scale_log2 - reference);
        sum += logit;
      }
    }
    softmax.sum[half] = softmax.sum[half] * corrections[half] + sum;
  }
}

// logits = -infinity where a row does not see the key: of kTiles groups of 8 keys from `begin` on.
template <int kTiles>
CHORUS_DEVICE void HideKeys(float (&logits)[kTiles][4], const LastKeys& last, int begin, int end,
                            int lane) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = begin + 8 * j + 2 * (lane & 3) + (i & 1);
      if (key >= end || key > last.of[i >> 1]) logits[j][i] = MinusInfinity();
    }
  }
}

template <int kTiles>
CHORUS_DEVICE void Clear(float (&tiles)[kTiles][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tiles[j][i] = 0.0f;
  }
}

template <int kTiles>
CHORUS_DEVICE void Rescale(float (&values)[kTiles][4], const float (&corrections)[2]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[j][i] *= corrections[i >> 1];
  }
}

}  // namespace chorus::device
