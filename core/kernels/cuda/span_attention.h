#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/cuda/warp_attention.h"
#include "core/kernels/cuda/warp_reduce.h"

namespace chorus::device {

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
  using Slots = KeySlots<kHeadDim, kThreads>;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const KeySpan span = LoadGlobal(launch.spans + BlockX());
    if (span.begin == span.end) return;  // padding of a recorded step: no tile reads it
    const Tile tile = LoadGlobal(launch.tiles + span.tile);
    // What is slow to come is asked for first: slots of two blocks, then keys, then queries.
    Slots first, next = {};
    first.Load(launch, tile, span.begin, span.end);
    const int second = span.begin + kKeyBlock;
    if (second < span.end) next.Load(launch, tile, second, span.end);
    CopyBlock(launch, first, span, span.begin, shared, 0);
    CopyQueries<Element, kHeadDim, kThreads>(launch, tile, BlockY(), kSpanQueries, shared);
    CopyAsyncCommit();
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    float scale_log2 = launch.softmax_scale * kLog2E;
    if (span.is_scaled != 0) {
      scale_log2 /= LoadGlobal(&launch.scalings[tile.scaling].temperature);
    }
    Warp queries;
    queries.Start(LastKeysOf(launch, tile, lane / 4));

    int stage = 0;
    for (int begin = span.begin; begin < span.end; begin += kKeyBlock, stage ^= 1) {
      const int copied = begin + kKeyBlock;
      if (copied < span.end) {
        CopyBlock(launch, next, span, copied, shared, stage ^ 1);
        const int loaded = copied + kKeyBlock;
        if (loaded < span.end) next.Load(launch, tile, loaded, span.end);
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

  CHORUS_DEVICE static void CopyBlock(const Launch& launch, const Slots& slots, const KeySpan& span,
                                      int begin, SharedAddress shared, int stage) {
    const SharedAddress keys = KeysAt(shared, stage);
    CopyKeys(launch, slots, BlockY(), begin, span.end, keys, keys + kBlockBytes);
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

// out = the softmax over all spans of a tile; segment spans under a SegmentScaling are merged among
// themselves first. Grid: [num_tiles, num_kv_heads]; a warp takes a query.
//
// Lane l reads what spans l, l + 32, ... found, all at once, and makes a weight of each; values are
// added in the order of the spans, several under way at a time. A span of which the query sees no
// key adds nothing, not even a zero: a row has the same bits whatever other rows its tile has.
template <class Element, int kHeadDim>
struct MergeSpans {
  static constexpr int kThreads = 128;
  static constexpr int kSharedBytes = 0;
  static constexpr int kDims = kHeadDim / kWarpSize;  // of one lane, in a row
  static constexpr int kSpans = 8;                    // whose values are under way at once
  static_assert(kWarpSize % kSpans == 0);
  using Launch = AttentionLaunch<Element>;

  // A query and where the warp's lanes stand.
  struct Query {
    Tile tile;
    int index;  // of the tile's
    int lane;
  };
  struct Found {
    SoftmaxPart softmax;  // of one span
    bool is_scaled;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int num_queries = (tile.row_end - tile.row_begin) * launch.heads_per_kv_head;
    const int warp = ThreadIndex() / kWarpSize, lane = ThreadIndex() % kWarpSize;
    for (int index = warp; index < num_queries; index += kThreads / kWarpSize) {
      const Query query = {tile, index, lane};
      SoftmaxPart others = {MinusInfinity(), 0.0f}, segments = others;
      for (int span = tile.span_begin + lane; span < tile.span_end; span += kWarpSize) {
        const Found found = Load(launch, query, span);
        if (found.is_scaled) {  // not one call with a chosen part: parts stay in registers
          Add(segments, found.softmax);
        } else {
          Add(others, found.softmax);
        }
      }
      others = OfWarp(others);
      if (tile.scaling >= 0) segments = OfWarp(segments);
      const PartFactors factors = MergeParts(others, segments, launch.scalings, tile.scaling);
      float values[kDims];
      for (int i = 0; i < kDims; ++i) values[i] = 0.0f;
      for (int begin = tile.span_begin; begin < tile.span_end; begin += kWarpSize) {
        const Found found = Load(launch, query, begin + lane);
        const float weight = found.is_scaled
                                 ? WeightOf(found, segments.max, factors.segments)
                                 : WeightOf(found, others.max, factors.others);
        AddValues(launch, query, begin, weight, values);
      }
      Write(launch, query, values, factors.log_sum * kLn2);
    }
  }

  CHORUS_DEVICE static int64_t StateAt(const Launch& launch, const Query& query, int span) {
    return (int64_t{span} * launch.num_kv_heads + BlockY()) * kSpanQueries + query.index;
  }

  // Past the last span: no key.
  CHORUS_DEVICE static Found Load(const Launch& launch, const Query& query, int span) {
    Found found = {{MinusInfinity(), 0.0f}, false};
    if (span >= query.tile.span_end) return found;
    const int64_t at = StateAt(launch, query, span);
    found.softmax = {LoadGlobal(launch.span_max + at), LoadGlobal(launch.span_sum + at)};
    if (query.tile.scaling >= 0) found.is_scaled = LoadGlobal(&launch.spans[span].is_scaled) != 0;
    return found;
  }

  CHORUS_DEVICE static void Add(SoftmaxPart& part, const SoftmaxPart& added) {
    if (added.max == MinusInfinity()) return;
    const float max = Max(part.max, added.max);
    part.sum = part.sum * Exp2(part.max - max) + added.sum * Exp2(added.max - max);
    part.max = max;
  }

  // Over all lanes; zeros of those without a key change no bit of the sum.
  CHORUS_DEVICE static SoftmaxPart OfWarp(const SoftmaxPart& part) {
    const float max = MaxOfWarp(part.max);
    const float sum = part.max == MinusInfinity() ? 0.0f : part.sum * Exp2(part.max - max);
    return {max, SumOfWarp(sum)};
  }

  CHORUS_DEVICE static float WeightOf(const Found& found, float max, float factor) {
    return found.softmax.max == MinusInfinity() ? 0.0f : Exp2(found.softmax.max - max) * factor;
  }

  // Of spans [begin, begin + kWarpSize), whose weights the lanes have.
  CHORUS_DEVICE static void AddValues(const Launch& launch, const Query& query, int begin,
                                      float weight, float (&values)[kDims]) {
    const int last = query.tile.span_end - 1;
    for (int i = 0; i < kWarpSize && begin + i <= last; i += kSpans) {
      float of_span[kSpans][kDims];
#pragma unroll
      for (int j = 0; j < kSpans; ++j) {  // past the last span: that one's, with a weight of zero
        const int span = begin + i + j < last ? begin + i + j : last;
        LoadGlobalFloats(
            launch.span_values + StateAt(launch, query, span) * kHeadDim + query.lane * kDims,
            of_span[j]);
      }
#pragma unroll
      for (int j = 0; j < kSpans; ++j) {
        const float of_weight = ShuffleFrom(weight, i + j);
#pragma unroll
        for (int d = 0; d < kDims; ++d) {
          const float sum = values[d] + of_span[j][d] * of_weight;
          values[d] = of_weight == 0.0f ? values[d] : sum;  // zero times infinity is not zero
        }
      }
    }
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const Query& query,
                                  const float (&values)[kDims], float log_sum_exp) {
    const PackedQueries packed = PackedQueries::Of(launch.heads_per_kv_head);
    const int64_t row = query.tile.row_begin + packed.RowOf(query.index);
    const int64_t row_head =
        row * launch.num_heads + BlockY() * packed.heads + packed.HeadOf(query.index);
    uint32_t pairs[kDims / 2];
#pragma unroll
    for (int i = 0; i < kDims / 2; ++i) {
      pairs[i] = PackPair<Element>(values[2 * i], values[2 * i + 1]);
    }
    StoreGlobalPairs(launch.out + row_head * kHeadDim + query.lane * kDims, pairs);
    if (launch.log_sum_exp != nullptr && query.lane == 0) {
      StoreGlobal(launch.log_sum_exp + row_head, log_sum_exp);
    }
  }
};

}  // namespace chorus::device
