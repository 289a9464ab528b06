#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/warp_attention.h"

namespace chorus::device {

inline constexpr int kSpanQueries = 16;  // packed queries of a tile, at most

// Few queries over many keys: one span of a tile and one kv head a thread block, and MergeSpans
// adds up what the spans of a tile found. Grid: [num_spans, num_kv_heads]. For the rows that see
// everything, suffix and generated ones, which are always cut like this: so that a row has the same
// bits alone, in a batch, and read again after it gave its KV space away.
//
// Each of four warps takes 16 of every 64 keys; in the end their states are merged in warp order.
template <class Element, int kHeadDim>
struct SpanAttention {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kQueryBytes = kSpanQueries * kHeadDim * 2;
  static constexpr int kBlockBytes = kKeyBlock * kHeadDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + kNumStages * 2 * kBlockBytes;
  static constexpr int kWarpKeys = kKeyBlock / kWarps;  // of every block
  // The warps' states, merged at the end, where queries and blocks were: padded rows of floats.
  static constexpr int kStateRow = kHeadDim + 8;
  static constexpr int kStateFloats = kSpanQueries * (kStateRow + 2);
  static_assert(kWarps * kStateFloats * 4 <= kSharedBytes);
  using Launch = AttentionLaunch<Element>;
  using Warp = WarpAttention<Element, kHeadDim, kWarpKeys / 8>;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const KeySpan span = LoadGlobal(launch.spans + BlockX());
    if (span.begin == span.end) return;  // padding of a recorded step: no tile reads it
    const Tile tile = LoadGlobal(launch.tiles + span.tile);
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    float scale_log2 = launch.softmax_scale * kLog2E;
    if (span.is_scaled != 0) {
      scale_log2 /= LoadGlobal(&launch.scalings[tile.scaling].temperature);
    }
    Warp queries;
    queries.Start(LastKeysOf(launch, tile, lane / 4));

    CopyQueries<Element, kHeadDim, kThreads>(launch, tile, BlockY(), kSpanQueries, shared);
    CopyBlock(launch, tile, span, span.begin, shared, 0);
    CopyAsyncCommit();
    int stage = 0;
    for (int begin = span.begin; begin < span.end; begin += kKeyBlock, stage ^= 1) {
      if (begin + kKeyBlock < span.end) {
        CopyBlock(launch, tile, span, begin + kKeyBlock, shared, stage ^ 1);
      }
      CopyAsyncCommit();
      CopyAsyncWait<1>();
      SyncThreads();
      if (begin == span.begin) queries.LoadQueries(shared, /*row=*/0, lane);
      const SharedAddress keys = KeysAt(shared, stage);
      const bool is_full = span.full_begin <= begin && begin < span.full_end;
      const int row = warp * kWarpKeys;
      float logits[kWarpKeys / 8][4];
      queries.Multiply(keys, row, lane, logits);
      if (launch.logit_offsets != nullptr) {
        StoreLogits(launch, tile, begin + row, span.end, lane, queries.last, logits);
      }
      queries.AddLogits(logits, keys + kBlockBytes, row, begin + row, span.end, is_full, scale_log2,
                        lane);
      SyncThreads();
    }
    CopyAsyncWait<0>();
    StoreState(shared + warp * kStateFloats * 4, lane, queries);
    SyncThreads();
    MergeWarps(launch, tile, shared);
  }

  CHORUS_DEVICE static SharedAddress KeysAt(SharedAddress shared, int stage) {
    return shared + kQueryBytes + stage * 2 * kBlockBytes;
  }

  CHORUS_DEVICE static void CopyBlock(const Launch& launch, const Tile& tile, const KeySpan& span,
                                      int begin, SharedAddress shared, int stage) {
    const SharedAddress keys = KeysAt(shared, stage);
    CopyKeys<Element, kHeadDim, kThreads>(launch, tile, BlockY(), begin, span.end, keys,
                                          keys + kBlockBytes);
  }

  // Of the rows that are looked at: the logits of those keys from `begin` on that each sees.
  CHORUS_DEVICE static void StoreLogits(const Launch& launch, const Tile& tile, int begin, int end,
                                        int lane, const LastKeys& last,
                                        const float (&logits)[kWarpKeys / 8][4]) {
    const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (last.of[half] < 0) continue;  // no query
      const int query = lane / 4 + 8 * half;
      const int64_t offset =
          LoadGlobal(launch.logit_offsets + tile.row_begin + packed.RowOf(query));
      if (offset < 0) continue;
      const int64_t head = BlockY() * packed.heads + packed.HeadOf(query);
      float* to = launch.logits + offset + head * (last.of[half] + 1);
#pragma unroll
      for (int j = 0; j < kWarpKeys / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = begin + 8 * j + 2 * (lane & 3) + i;
          if (key >= end || key > last.of[half]) continue;
          StoreGlobal(to + key, logits[j][2 * half + i] * launch.softmax_scale);
        }
      }
    }
  }

  // [kSpanQueries][kStateRow] values, then [kSpanQueries] of max and of sum.
  CHORUS_DEVICE static void StoreState(SharedAddress to, int lane, const Warp& queries) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = lane / 4 + 8 * half;
      const float sum = SumOfQuad(queries.softmax.sum[half]);
      const SharedAddress row = to + query * kStateRow * 4;
#pragma unroll
      for (int d = 0; d < Warp::kDimTiles; ++d) {
        const SharedAddress at = row + (8 * d + 2 * (lane & 3)) * 4;
        StoreShared(at, queries.values[d][2 * half]);
        StoreShared(at + 4, queries.values[d][2 * half + 1]);
      }
      if ((lane & 3) == 0) {
        const SharedAddress state = to + (kSpanQueries * kStateRow + query) * 4;
        StoreShared(state, queries.softmax.max[half]);
        StoreShared(state + kSpanQueries * 4, sum);
      }
    }
  }

  CHORUS_DEVICE static void MergeWarps(const Launch& launch, const Tile& tile,
                                       SharedAddress shared) {
    const int num_queries = (tile.row_end - tile.row_begin) * launch.heads_per_kv_head;
    const int64_t first = (int64_t{BlockX()} * launch.num_kv_heads + BlockY()) * kSpanQueries;
    for (int i = ThreadIndex(); i < num_queries * kHeadDim; i += kThreads) {
      const int query = i / kHeadDim, dim = i % kHeadDim;
      const SharedAddress state = shared + (kSpanQueries * kStateRow + query) * 4;
      float max = MinusInfinity();
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) {
        max = Max(max, LoadShared(state + warp * kStateFloats * 4));
      }
      const float reference = max == MinusInfinity() ? 0.0f : max;
      float sum = 0.0f, value = 0.0f;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) {
        const SharedAddress of = state + warp * kStateFloats * 4;
        const SharedAddress row = shared + (warp * kStateFloats + query * kStateRow) * 4;
        const float weight = Exp2(LoadShared(of) - reference);
        sum += LoadShared(of + kSpanQueries * 4) * weight;
        value += LoadShared(row + dim * 4) * weight;
      }
      StoreGlobal(launch.span_values + (first + query) * kHeadDim + dim, value);
      if (dim == 0) {
        StoreGlobal(launch.span_max + first + query, max);
        StoreGlobal(launch.span_sum + first + query, sum);
      }
    }
  }
};

// out = the softmax over all spans of a tile, in their order; segment spans under a SegmentScaling
// are merged among themselves first. Grid: [num_tiles, num_kv_heads]; a warp takes a query.
template <class Element, int kHeadDim>
struct MergeSpans {
  static constexpr int kThreads = 128;
  static constexpr int kSharedBytes = 0;
  static constexpr int kDims = kHeadDim / kWarpSize;  // of one lane: lane, lane + 32, ...
  using Launch = AttentionLaunch<Element>;

  struct Part {
    SoftmaxPart softmax;
    float values[kDims];
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int num_queries = (tile.row_end - tile.row_begin) * launch.heads_per_kv_head;
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    for (int query = warp; query < num_queries; query += kThreads / kWarpSize) {
      Part others = Empty(), segments = Empty();
      for (int span = tile.span_begin; span < tile.span_end; ++span) {
        const bool is_scaled = LoadGlobal(&launch.spans[span].is_scaled) != 0;
        if (is_scaled) {  // not one call with a chosen part: parts stay in registers
          Add(launch, span, query, lane, segments);
        } else {
          Add(launch, span, query, lane, others);
        }
      }
      Write(launch, tile, query, lane, others, segments);
    }
  }

  CHORUS_DEVICE static Part Empty() {
    Part part{{MinusInfinity(), 0.0f}, {}};
#pragma unroll
    for (int i = 0; i < kDims; ++i) part.values[i] = 0.0f;
    return part;
  }

  CHORUS_DEVICE static void Add(const Launch& launch, int span, int query, int lane, Part& part) {
    const int64_t at = (int64_t{span} * launch.num_kv_heads + BlockY()) * kSpanQueries + query;
    const float span_max = LoadGlobal(launch.span_max + at);
    if (span_max == MinusInfinity()) return;  // the query sees no key of it
    SoftmaxPart& softmax = part.softmax;
    const float max = Max(softmax.max, span_max);
    const float kept = Exp2(softmax.max - max), added = Exp2(span_max - max);
    softmax.max = max;
    softmax.sum = softmax.sum * kept + LoadGlobal(launch.span_sum + at) * added;
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const float* value = launch.span_values + at * kHeadDim + lane + i * kWarpSize;
      part.values[i] = part.values[i] * kept + LoadGlobal(value) * added;
    }
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const Tile& tile, int query, int lane,
                                  const Part& others, const Part& segments) {
    const PartFactors factors =
        MergeParts(others.softmax, segments.softmax, launch.scalings, tile.scaling);
    const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
    const int64_t row = tile.row_begin + packed.RowOf(query);
    const int64_t row_head =
        row * launch.num_heads + BlockY() * packed.heads + packed.HeadOf(query);
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const float value = others.values[i] * factors.others + segments.values[i] * factors.segments;
      StoreGlobal(launch.out + row_head * kHeadDim + lane + i * kWarpSize,
                  FromFloat<Element>(value));
    }
    if (launch.log_sum_exp != nullptr && lane == 0) {
      StoreGlobal(launch.log_sum_exp + row_head, factors.log_sum * kLn2);
    }
  }
};

}  // namespace chorus::device
