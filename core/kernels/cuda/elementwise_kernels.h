#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/warp_reduce.h"
#include "core/segment/attention_plan.h"

// What stands between matrix products and attention: the functions of elementwise.h for a device.
// Activations are 16-bit, the residual, norms, rotations and sums float32. Every row is computed by
// itself, in an order that depends on its size only. These kernels are bound by memory, with few
// rows by its latency: reads are of several elements, and none waits for a write before it.
namespace chorus::device {

inline constexpr int kElementwiseThreads = 256;

// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + epsilon) * weight, where x is the residual after
// residual += delta (if there is a delta). Grid: [num_rows]. `size` is even.
template <class Element>
struct AddRmsNormKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kSharedBytes = kWarps * 4;
  static constexpr int kBatch = 8;  // pairs of a thread that are read before one is written

  struct Launch {
    float* residual = nullptr;       // [num_rows, size]
    const Element* delta = nullptr;  // [num_rows, size], or null
    const float* weight = nullptr;   // [size]
    Element* out = nullptr;          // [num_rows, size]
    int32_t size = 0;
    float epsilon = 0.0f;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const int64_t offset = int64_t{BlockX()} * launch.size;
    constexpr int kStep = 2 * kBatch * kThreads;
    float sum = 0.0f;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += kStep) {
      sum = AddDelta(launch, offset + i, launch.size - i, sum);
    }
    const float factor =
        ReciprocalSqrt(SumOfBlock(sum, shared) / static_cast<float>(launch.size) + launch.epsilon);
    for (int i = 2 * ThreadIndex(); i < launch.size; i += kStep) {
      float values[kBatch][2], weights[kBatch][2];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int at = i + 2 * j * kThreads;
        if (at >= launch.size) continue;
        LoadGlobalFloats(launch.residual + offset + at, values[j]);  // what the thread wrote itself
        LoadGlobalFloats(launch.weight + at, weights[j]);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int at = i + 2 * j * kThreads;
        if (at >= launch.size) continue;
        StoreGlobalPair(launch.out + offset + at,
                        PackPair<Element>(values[j][0] * factor * weights[j][0],
                                          values[j][1] * factor * weights[j][1]));
      }
    }
  }

  // Adds delta to a batch of pairs from `offset` on, of which so many elements of the row are left,
  // and their squares to the sum, in order.
  CHORUS_DEVICE static float AddDelta(const Launch& launch, int64_t offset, int num_left,
                                      float sum) {
    float* x = launch.residual + offset;
    float values[kBatch][2];
    uint32_t deltas[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int at = 2 * j * kThreads;
      if (at >= num_left) continue;
      LoadGlobalFloats(x + at, values[j]);
      if (launch.delta != nullptr) deltas[j] = LoadGlobalPair(launch.delta + offset + at);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int at = 2 * j * kThreads;
      if (at >= num_left) continue;
      if (launch.delta != nullptr) {
        const FloatPair delta = UnpackPair<Element>(deltas[j]);
        values[j][0] += delta.low;
        values[j][1] += delta.high;
        StoreGlobalFloats(x + at, values[j]);
      }
      sum += values[j][0] * values[j][0] + values[j][1] * values[j][1];
    }
    return sum;
  }

  CHORUS_DEVICE static float SumOfBlock(float value, SharedAddress shared) {
    const float of_warp = SumOfWarp(value);
    if (ThreadIndex() % kWarpSize == 0)
      StoreShared(shared + ThreadIndex() / kWarpSize * 4, of_warp);
    SyncThreads();
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += LoadShared(shared + warp * 4);
    return sum;
  }
};

// Rotary embedding in the rotate-half form over q and k, then k and v into their slots. A thread
// takes four dims of each half of a head, or two. Grid: [num_rows, NumBlocks]. head_dim is a
// multiple of 4.
template <class Element>
struct RopeAndWriteKvKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const Element* qkv = nullptr;        // [num_rows, (num_heads + 2 num_kv_heads) * head_dim]
    const int32_t* positions = nullptr;  // [num_rows]
    const int32_t* slots = nullptr;      // [num_rows]
    const float* cosine = nullptr;       // [max_positions, head_dim / 2]
    const float* sine = nullptr;         // like cosine
    Element* q_out = nullptr;            // [num_rows, num_heads, head_dim]
    Element* k = nullptr;                // [num_slots, num_kv_heads, head_dim]
    Element* v = nullptr;                // like k
    int32_t num_heads = 0;
    int32_t num_kv_heads = 0;
    int32_t head_dim = 0;
  };

  // One for each kThreads groups of dims.
  static constexpr int NumBlocks(int num_heads, int num_kv_heads, int head_dim) {
    const int num_dims = head_dim % 8 == 0 ? 4 : 2;
    const int num_groups = (num_heads + 2 * num_kv_heads) * (head_dim / 2 / num_dims);
    return (num_groups + kThreads - 1) / kThreads;
  }

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    if (launch.head_dim % 8 == 0) {
      RunInGroups<2>(launch);
    } else {
      RunInGroups<1>(launch);
    }
  }

  template <int kPairs>
  CHORUS_DEVICE static void RunInGroups(const Launch& launch) {
    const int64_t row = BlockX();
    const int head_dim = launch.head_dim, half = head_dim / 2, groups = half / (2 * kPairs);
    const int num_heads = launch.num_heads, num_kv_heads = launch.num_kv_heads;
    const int num_rotated = num_heads + num_kv_heads, num_all = num_rotated + num_kv_heads;
    const int index = BlockY() * kThreads + ThreadIndex();
    const int head = index / groups, dim = index % groups * 2 * kPairs;
    if (head >= num_all) return;
    const Element* from = launch.qkv + (row * num_all + head) * head_dim + dim;
    if (head < num_heads) {
      Element* to = launch.q_out + (row * num_heads + head) * head_dim + dim;
      return Rotate<kPairs>(from, TableOf(launch, dim), half, launch, to);
    }
    const int64_t slot = LoadGlobal(launch.slots + row);
    const int kv_head = (head - num_heads) % num_kv_heads;
    const int64_t at = (slot * num_kv_heads + kv_head) * head_dim + dim;
    if (head < num_rotated) {
      return Rotate<kPairs>(from, TableOf(launch, dim), half, launch, launch.k + at);
    }
    uint32_t low[kPairs], high[kPairs];
    LoadGlobalPairs(from, low);
    LoadGlobalPairs(from + half, high);
    StoreGlobalPairs(launch.v + at, low);
    StoreGlobalPairs(launch.v + at + half, high);
  }

  // Of the row's position, in cosine and sine.
  CHORUS_DEVICE static int64_t TableOf(const Launch& launch, int dim) {
    return int64_t{LoadGlobal(launch.positions + BlockX())} * (launch.head_dim / 2) + dim;
  }

  // (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) for 2 kPairs dims of both halves of a head;
  // `tables` has cosine and sine.
  template <int kPairs, class Tables>
  CHORUS_DEVICE static void Rotate(const Element* from, int64_t table, int half,
                                   const Tables& tables, Element* to) {
    uint32_t low[kPairs], high[kPairs];
    float cosine[2 * kPairs], sine[2 * kPairs];
    LoadGlobalPairs(from, low);
    LoadGlobalPairs(from + half, high);
    LoadGlobalFloats(tables.cosine + table, cosine);
    LoadGlobalFloats(tables.sine + table, sine);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const FloatPair x1 = UnpackPair<Element>(low[i]), x2 = UnpackPair<Element>(high[i]);
      const FloatPair c = {cosine[2 * i], cosine[2 * i + 1]}, s = {sine[2 * i], sine[2 * i + 1]};
      low[i] = PackPair<Element>(x1.low * c.low - x2.low * s.low,
                                 x1.high * c.high - x2.high * s.high);
      high[i] = PackPair<Element>(x2.low * c.low + x1.low * s.low,
                                  x2.high * c.high + x1.high * s.high);
    }
    StoreGlobalPairs(to, low);
    StoreGlobalPairs(to + half, high);
  }
};

// The moves of one layer, as MoveKv. Grid: [num_moves].
template <class Element>
struct MoveKvKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const KvMove* moves = nullptr;
    const float* cosine = nullptr;  // [max_positions, head_dim / 2], by distance
    const float* sine = nullptr;    // like cosine
    Element* k = nullptr;           // [num_slots, num_kv_heads, head_dim]
    Element* v = nullptr;           // like k
    int32_t num_kv_heads = 0;
    int32_t head_dim = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const KvMove move = LoadGlobal(launch.moves + BlockX());
    const int head_dim = launch.head_dim, half = head_dim / 2, pairs = half / 2;
    const int64_t slot_size = int64_t{launch.num_kv_heads} * head_dim;
    const int64_t from = move.from_slot * slot_size, to = move.to_slot * slot_size;
    const int64_t table = int64_t{move.distance} * half;
    for (int i = ThreadIndex(); i < launch.num_kv_heads * pairs; i += kThreads) {
      const int at = i / pairs * head_dim + i % pairs * 2, dim = i % pairs * 2;
      RopeAndWriteKvKernel<Element>::template Rotate<1>(launch.k + from + at, table + dim, half,
                                                        launch, launch.k + to + at);
    }
    for (int i = 2 * ThreadIndex(); i < slot_size; i += 2 * kThreads) {
      StoreGlobalPair(launch.v + to + i, LoadGlobalPair(launch.v + from + i));
    }
  }
};

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]. Grid: [num_rows, NumBlocks(size)]. `size`
// is even.
template <class Element>
struct SiluMultiplyKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;
  static constexpr int kPiece = 8 * kThreads;  // of a row, for one block

  struct Launch {
    const Element* gate_up = nullptr;  // [num_rows, 2 * size]
    Element* out = nullptr;            // [num_rows, size]
    int32_t size = 0;
  };

  static constexpr int NumBlocks(int size) { return (size + kPiece - 1) / kPiece; }

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    if (launch.size % 8 == 0) {
      RunInGroups<4>(launch);
    } else {
      RunInGroups<1>(launch);
    }
  }

  template <int kPairs>
  CHORUS_DEVICE static void RunInGroups(const Launch& launch) {
    const Element* gate = launch.gate_up + int64_t{BlockX()} * 2 * launch.size;
    Element* out = launch.out + int64_t{BlockX()} * launch.size;
    const int begin = BlockY() * kPiece;
    const int end = begin + kPiece < launch.size ? begin + kPiece : launch.size;
    for (int i = begin + 2 * kPairs * ThreadIndex(); i < end; i += 2 * kPairs * kThreads) {
      uint32_t gates[kPairs], ups[kPairs];
      LoadGlobalPairs(gate + i, gates);
      LoadGlobalPairs(gate + launch.size + i, ups);
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const FloatPair x = UnpackPair<Element>(gates[j]), up = UnpackPair<Element>(ups[j]);
        gates[j] = PackPair<Element>(Silu(x.low) * up.low, Silu(x.high) * up.high);
      }
      StoreGlobalPairs(out + i, gates);
    }
  }

  // Of -|x|, so that no exponential overflows.
  CHORUS_DEVICE static float Silu(float x) {
    const float e = Exp2(-Abs(x) * 1.4426950408889634f);
    return x * ((x < 0.0f ? e : 1.0f) / (1.0f + e));
  }
};

// residual[r, :] = table[token_ids[r], :]. Grid: [num_rows]. `size` is even.
template <class Element>
struct EmbedKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const int32_t* token_ids = nullptr;  // [num_rows]
    const Element* table = nullptr;      // [vocab_size, size]
    float* residual = nullptr;           // [num_rows, size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Element* from =
        launch.table + int64_t{LoadGlobal(launch.token_ids + BlockX())} * launch.size;
    float* to = launch.residual + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const FloatPair value = UnpackPair<Element>(LoadGlobalPair(from + i));
      StoreGlobal(to + i, value.low);
      StoreGlobal(to + i + 1, value.high);
    }
  }
};

CHORUS_DEVICE void CopyPair(const float* from, float* to) {
  StoreGlobal(to, LoadGlobal(from));
  StoreGlobal(to + 1, LoadGlobal(from + 1));
}
template <class Element>
CHORUS_DEVICE void CopyPair(const Element* from, Element* to) {
  StoreGlobalPair(to, LoadGlobalPair(from));
}

// out[i, :] = from[rows[i], :], of 16-bit elements or floats. Grid: [num_gathered]. `size` is even.
template <class T>
struct GatherRowsKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const T* from = nullptr;        // [num_rows, size]
    const int32_t* rows = nullptr;  // [num_gathered]
    T* out = nullptr;               // [num_gathered, size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const T* from = launch.from + int64_t{LoadGlobal(launch.rows + BlockX())} * launch.size;
    T* to = launch.out + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) CopyPair(from + i, to + i);
  }
};

// x[r, :] += bias, the sum in float32. Grid: [num_rows]. `size` is even.
template <class Element>
struct AddBiasKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    Element* x = nullptr;         // [num_rows, size]
    const float* bias = nullptr;  // [size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    Element* x = launch.x + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const FloatPair value = UnpackPair<Element>(LoadGlobalPair(x + i));
      StoreGlobalPair(x + i, PackPair<Element>(value.low + LoadGlobal(launch.bias + i),
                                               value.high + LoadGlobal(launch.bias + i + 1)));
    }
  }
};

}  // namespace chorus::device
