#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/cuda/warp_reduce.h"

namespace chorus::device {

// One row and one head a warp, keys one after the other with an online softmax in float32: for what
// the fast kernels do not take. Any even head_dim up to 256, any number of heads a kv head; a
// layer's window is in the tiles. Rows of all kinds, so that one launch does a
// layer. It has no tensor cores and reads a key once a head: simple, not fast. Grid: [num_tiles,
// num_heads / kWarps, rounded up].
//
// REQUIRES: tiles cut by kPlainTileShape, of one row, in blocks of one key, so that the row sees
// every key of its spans; a tile of no row is padding. Keys are added four at a time, counted from
// a span's begin, which is the first key of an interval that the row sees: its bits depend on
// nothing else.
template <class Element>
struct PlainAttention {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kSharedBytes = 0;
  static constexpr int kKeys = 4;   // under way at once
  static constexpr int kPairs = 4;  // pairs of dims of a lane: 2 (lane + 32 i) and the one after
  static_assert(2 * kPairs * kWarpSize == kPlainMaxHeadDim);
  using Launch = AttentionLaunch<Element>;

  struct Query {
    FloatPair q[kPairs];
    int64_t row_head;
    int32_t kv_head;
    int32_t table_begin;
    float* logits;  // where its logits go, by key; null: nowhere
  };
  struct Part {
    SoftmaxPart softmax;
    FloatPair values[kPairs];
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Tile tile = LoadGlobal(launch.tiles + BlockX());
    const int head = BlockY() * kWarps + ThreadIndex() / kWarpSize;
    if (tile.row_begin == tile.row_end || head >= launch.num_heads) return;
    const Query query = LoadQuery(launch, tile, head);
    const float scale_log2 = launch.softmax_scale * kLog2E;
    Part others = Empty(), segments = Empty();
    for (int i = tile.span_begin; i < tile.span_end; ++i) {
      const KeySpan span = LoadGlobal(launch.spans + i);
      if (span.is_scaled != 0) {  // not one call with a chosen part: parts stay in registers
        const float temperature = LoadGlobal(&launch.scalings[tile.scaling].temperature);
        Add(launch, query, span, scale_log2 / temperature, segments);
      } else {
        Add(launch, query, span, scale_log2, others);
      }
    }
    if (launch.out != nullptr) Write(launch, tile, query, others, segments);
  }

  CHORUS_DEVICE static int DimOf(int pair) {
    return 2 * (ThreadIndex() % kWarpSize + pair * kWarpSize);
  }

  CHORUS_DEVICE static Query LoadQuery(const Launch& launch, const Tile& tile, int head) {
    Query query;
    query.row_head = int64_t{tile.row_begin} * launch.num_heads + head;
    query.kv_head = head / launch.heads_per_kv_head;
    query.table_begin = tile.table_begin;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      query.q[i] = {0.0f, 0.0f};
      if (DimOf(i) < launch.head_dim) {
        const Element* from = launch.q + query.row_head * launch.head_dim + DimOf(i);
        query.q[i] = UnpackPair<Element>(LoadGlobalPair(from));
      }
    }
    query.logits = nullptr;
    if (launch.logit_offsets != nullptr) {
      const int64_t offset = LoadGlobal(launch.logit_offsets + tile.row_begin);
      if (offset >= 0)
        query.logits = launch.logits + offset + int64_t{head} * (tile.query_begin + 1);
    }
    return query;
  }

  CHORUS_DEVICE static Part Empty() {
    Part part{{MinusInfinity(), 0.0f}, {}};
#pragma unroll
    for (int i = 0; i < kPairs; ++i) part.values[i] = {0.0f, 0.0f};
    return part;
  }

  CHORUS_DEVICE static void Add(const Launch& launch, const Query& query, const KeySpan& span,
                                float scale_log2, Part& part) {
    for (int key = span.begin; key < span.end; key += kKeys) {
      int64_t offsets[kKeys];  // of the keys and values
      float logits[kKeys];
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        const bool is_valid = key + j < span.end;
        const int64_t slot =
            LoadGlobal(launch.slot_table + query.table_begin + key + (is_valid ? j : 0));
        offsets[j] = (slot * launch.num_kv_heads + query.kv_head) * launch.head_dim;
        logits[j] = Multiply(launch, query, launch.k + offsets[j]);
        if (!is_valid) logits[j] = MinusInfinity();
      }
      if (query.logits != nullptr) {
        StoreLogits(query.logits + key, logits, span.end - key, launch.softmax_scale);
      }
      if (launch.out == nullptr) continue;
      Update(scale_log2, logits, part);
#pragma unroll
      for (int j = 0; j < kKeys; ++j) {
        if (key + j < span.end) AddValue(launch, launch.v + offsets[j], logits[j], part);
      }
    }
  }

  // q k; the same in every lane.
  CHORUS_DEVICE static float Multiply(const Launch& launch, const Query& query, const Element* k) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (DimOf(i) >= launch.head_dim) continue;
      const FloatPair of_key = UnpackPair<Element>(LoadGlobalPair(k + DimOf(i)));
      sum += query.q[i].low * of_key.low + query.q[i].high * of_key.high;
    }
    return SumOfWarp(sum);
  }

  CHORUS_DEVICE static void StoreLogits(float* to, const float (&logits)[kKeys], int num_keys,
                                        float softmax_scale) {
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      if (j < num_keys && ThreadIndex() % kWarpSize == j) {
        StoreGlobal(to + j, logits[j] * softmax_scale);
      }
    }
  }

  // Logits become weights; the first of them is of a key that the row sees.
  CHORUS_DEVICE static void Update(float scale_log2, float (&logits)[kKeys], Part& part) {
    float max = logits[0];
#pragma unroll
    for (int j = 1; j < kKeys; ++j) max = Max(max, logits[j]);
    max = Max(part.softmax.max, max * scale_log2);
    const float kept = Exp2(part.softmax.max - max);
    part.softmax.max = max;
    part.softmax.sum *= kept;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      logits[j] = Exp2(logits[j] * scale_log2 - max);
      part.softmax.sum += logits[j];
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      part.values[i].low *= kept;
      part.values[i].high *= kept;
    }
  }

  CHORUS_DEVICE static void AddValue(const Launch& launch, const Element* v, float weight,
                                     Part& part) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (DimOf(i) >= launch.head_dim) continue;
      const FloatPair value = UnpackPair<Element>(LoadGlobalPair(v + DimOf(i)));
      part.values[i].low += weight * value.low;
      part.values[i].high += weight * value.high;
    }
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const Tile& tile, const Query& query,
                                  const Part& others, const Part& segments) {
    const PartFactors factors =
        MergeParts(others.softmax, segments.softmax, launch.scalings, tile.scaling);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (DimOf(i) >= launch.head_dim) continue;
      const FloatPair of_others = others.values[i], of_segments = segments.values[i];
      StoreGlobalPair(
          launch.out + query.row_head * launch.head_dim + DimOf(i),
          PackPair<Element>(of_others.low * factors.others + of_segments.low * factors.segments,
                            of_others.high * factors.others + of_segments.high * factors.segments));
    }
    if (launch.log_sum_exp != nullptr && ThreadIndex() % kWarpSize == 0) {
      StoreGlobal(launch.log_sum_exp + query.row_head, factors.log_sum * kLn2);
    }
  }
};

}  // namespace chorus::device
