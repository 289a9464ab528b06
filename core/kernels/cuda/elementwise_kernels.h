#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/warp_reduce.h"
#include "core/segment/attention_plan.h"

// What stands between matrix products and attention: the functions of elementwise.h for a device.
// Activations are 16-bit, the residual, norms, rotations and sums float32. Every row is computed by
// itself, in an order that depends on its size only. All reads and writes are pairs of elements, so
// that a warp moves 128 bytes at once; these kernels are bound by memory.
namespace chorus::device {

inline constexpr int kElementwiseThreads = 256;

// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + epsilon) * weight, where x is the residual after
// residual += delta (if there is a delta). Grid: [num_rows]. `size` is even.
template <class Element>
struct AddRmsNormKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kSharedBytes = kWarps * 4;

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
    float* x = launch.residual + offset;
    float sum = 0.0f;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      FloatPair value = {LoadGlobal(x + i), LoadGlobal(x + i + 1)};
      if (launch.delta != nullptr) {
        const FloatPair delta = UnpackPair<Element>(LoadGlobalPair(launch.delta + offset + i));
        value.low += delta.low;
        value.high += delta.high;
        StoreGlobal(x + i, value.low);
        StoreGlobal(x + i + 1, value.high);
      }
      sum += value.low * value.low + value.high * value.high;
    }
    const float factor =
        ReciprocalSqrt(SumOfBlock(sum, shared) / static_cast<float>(launch.size) + launch.epsilon);
    // Each thread reads what it wrote itself.
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const float low = LoadGlobal(x + i) * factor * LoadGlobal(launch.weight + i);
      const float high = LoadGlobal(x + i + 1) * factor * LoadGlobal(launch.weight + i + 1);
      StoreGlobalPair(launch.out + offset + i, PackPair<Element>(low, high));
    }
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
// takes a pair of dims of each half of a head. Grid: [num_rows]. head_dim is a multiple of 4.
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

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const int64_t row = BlockX();
    const int head_dim = launch.head_dim, half = head_dim / 2;
    const int num_heads = launch.num_heads, num_kv_heads = launch.num_kv_heads;
    const Element* from = launch.qkv + row * (num_heads + 2 * num_kv_heads) * head_dim;
    const int64_t table = int64_t{LoadGlobal(launch.positions + row)} * half;
    const int64_t kv = int64_t{LoadGlobal(launch.slots + row)} * num_kv_heads * head_dim;
    const int pairs = half / 2;
    for (int i = ThreadIndex(); i < (num_heads + num_kv_heads) * pairs; i += kThreads) {
      const int head = i / pairs, dim = i % pairs * 2;
      Element* to = head < num_heads ? launch.q_out + (row * num_heads + head) * head_dim
                                     : launch.k + kv + (head - num_heads) * head_dim;
      Rotate(from + head * head_dim + dim, launch.cosine + table + dim, launch.sine + table + dim,
             half, to + dim);
    }
    const Element* values = from + (num_heads + num_kv_heads) * head_dim;
    for (int i = 2 * ThreadIndex(); i < num_kv_heads * head_dim; i += 2 * kThreads) {
      StoreGlobalPair(launch.v + kv + i, LoadGlobalPair(values + i));
    }
  }

  // (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) for two dims of both halves of a head.
  CHORUS_DEVICE static void Rotate(const Element* from, const float* cosine, const float* sine,
                                   int half, Element* to) {
    const FloatPair x1 = UnpackPair<Element>(LoadGlobalPair(from));
    const FloatPair x2 = UnpackPair<Element>(LoadGlobalPair(from + half));
    const FloatPair c = {LoadGlobal(cosine), LoadGlobal(cosine + 1)};
    const FloatPair s = {LoadGlobal(sine), LoadGlobal(sine + 1)};
    StoreGlobalPair(to, PackPair<Element>(x1.low * c.low - x2.low * s.low,
                                          x1.high * c.high - x2.high * s.high));
    StoreGlobalPair(to + half, PackPair<Element>(x2.low * c.low + x1.low * s.low,
                                                 x2.high * c.high + x1.high * s.high));
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
      RopeAndWriteKvKernel<Element>::Rotate(launch.k + from + at, launch.cosine + table + dim,
                                            launch.sine + table + dim, half, launch.k + to + at);
    }
    for (int i = 2 * ThreadIndex(); i < slot_size; i += 2 * kThreads) {
      StoreGlobalPair(launch.v + to + i, LoadGlobalPair(launch.v + from + i));
    }
  }
};

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]. Grid: [num_rows]. `size` is even.
template <class Element>
struct SiluMultiplyKernel {
  static constexpr int kThreads = kElementwiseThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const Element* gate_up = nullptr;  // [num_rows, 2 * size]
    Element* out = nullptr;            // [num_rows, size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Element* gate = launch.gate_up + int64_t{BlockX()} * 2 * launch.size;
    Element* out = launch.out + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const FloatPair x = UnpackPair<Element>(LoadGlobalPair(gate + i));
      const FloatPair up = UnpackPair<Element>(LoadGlobalPair(gate + launch.size + i));
      StoreGlobalPair(out + i, PackPair<Element>(Silu(x.low) * up.low, Silu(x.high) * up.high));
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
