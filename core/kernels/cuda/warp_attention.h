#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"

namespace chorus::device {

// 16 queries of one warp, and their softmax over the keys added so far: FlashAttention-2's inner
// loop. Keys come in groups of 8 kKeyTiles; every thread holds its fragments.
template <class Element, int kHeadDim, int kKeyTiles>
struct WarpAttention {
  static constexpr int kSteps = kHeadDim / 16;    // mma steps along the head's dims
  static constexpr int kDimTiles = kHeadDim / 8;  // columns of values
  static_assert(kKeyTiles % 2 == 0);

  uint32_t q[kSteps][4];
  float values[kDimTiles][4];
  OnlineSoftmax softmax;
  LastKeys last;

  CHORUS_DEVICE void Start(const LastKeys& last_keys) {
    Clear(values);
    softmax = {{MinusInfinity(), MinusInfinity()}, {0.0f, 0.0f}};
    last = last_keys;
  }

  // Rows [row, row + 16) of the packed queries in shared memory.
  CHORUS_DEVICE void LoadQueries(SharedAddress queries, int row, int lane) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      LoadMatrix4(q[step], RowsFirst<kHeadDim>(queries, row, 2 * step, lane));
    }
  }

  // The keys and values in rows [row, row + 8 kKeyTiles) of a block. The first is key `begin`;
  // those at or past `end`, and those that a query does not see, are hidden unless the block is
  // full.
  CHORUS_DEVICE void Add(SharedAddress keys, SharedAddress key_values, int row, int begin, int end,
                         bool is_full, float scale_log2, int lane) {
    float logits[kKeyTiles][4];
    Multiply(keys, row, lane, logits);
    AddLogits(logits, key_values, row, begin, end, is_full, scale_log2, lane);
  }

  // Add in two steps: logits = q k, not scaled; then what they do to softmax and values.
  CHORUS_DEVICE void Multiply(SharedAddress keys, int row, int lane,
                              float (&logits)[kKeyTiles][4]) const {
    Clear(logits);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        uint32_t b[4];
        LoadMatrix4(b, PiecesFirst<kHeadDim>(keys, row + 8 * j, 2 * step, lane));
        Mma<Element>(logits[j], q[step], b[0], b[1]);
        Mma<Element>(logits[j + 1], q[step], b[2], b[3]);
      }
    }
  }

  CHORUS_DEVICE void AddLogits(float (&logits)[kKeyTiles][4], SharedAddress key_values, int row,
                               int begin, int end, bool is_full, float scale_log2, int lane) {
    if (!is_full) HideKeys(logits, last, begin, end, lane);
    float corrections[2];
    UpdateSoftmax(logits, scale_log2, softmax, corrections);
    Rescale(values, corrections);
    AddValues(logits, key_values, row, lane);
  }

  // values += weights V. The weights' columns are the keys: two of C's tiles are one A operand.
  CHORUS_DEVICE void AddValues(const float (&weights)[kKeyTiles][4], SharedAddress key_values,
                               int row, int lane) {
#pragma unroll
    for (int j = 0; j < kKeyTiles; j += 2) {
      const uint32_t a[4] = {PackPair<Element>(weights[j][0], weights[j][1]),
                             PackPair<Element>(weights[j][2], weights[j][3]),
                             PackPair<Element>(weights[j + 1][0], weights[j + 1][1]),
                             PackPair<Element>(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
      for (int d = 0; d < kDimTiles; d += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, RowsFirst<kHeadDim>(key_values, row + 8 * j, d, lane));
        Mma<Element>(values[d], a, b[0], b[1]);
        Mma<Element>(values[d + 1], a, b[2], b[3]);
      }
    }
  }
};

}  // namespace chorus::device
