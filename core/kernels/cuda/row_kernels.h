#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"

// Rows that are looked up, gathered, or get a bias: a thread block a row. Grid: [num_rows].
namespace chorus::device {

inline constexpr int kRowThreads = 256;

// residual[r, :] = table[token_ids[r], :]. `size` is even.
template <class Element>
struct EmbedKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const Element* table = nullptr;      // [*, size]
    const int32_t* token_ids = nullptr;  // [num_rows]
    float* residual = nullptr;           // [num_rows, size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const Element* from =
        launch.table + int64_t{LoadGlobal(launch.token_ids + BlockX())} * launch.size;
    float* to = launch.residual + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const FloatPair pair = UnpackPair<Element>(LoadGlobalPair(from + i));
      StoreGlobal(to + i, pair.low);
      StoreGlobal(to + i + 1, pair.high);
    }
  }
};

// x[r, :] += bias. `size` is even.
template <class Element>
struct AddBiasKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    Element* x = nullptr;         // [num_rows, size]
    const float* bias = nullptr;  // [size]
    int32_t size = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    Element* row = launch.x + int64_t{BlockX()} * launch.size;
    for (int i = 2 * ThreadIndex(); i < launch.size; i += 2 * kThreads) {
      const FloatPair pair = UnpackPair<Element>(LoadGlobalPair(row + i));
      StoreGlobalPair(row + i, PackPair<Element>(pair.low + LoadGlobal(launch.bias + i),
                                                 pair.high + LoadGlobal(launch.bias + i + 1)));
    }
  }
};

// to[i, :] = from[rows[i], :], in words of four bytes.
struct GatherRowsKernel {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kSharedBytes = 0;

  struct Launch {
    const uint32_t* from = nullptr;  // [*, row_words]
    const int32_t* rows = nullptr;   // [num_rows]
    uint32_t* to = nullptr;          // [num_rows, row_words]
    int32_t row_words = 0;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const int64_t row = LoadGlobal(launch.rows + BlockX());
    const uint32_t* from = launch.from + row * launch.row_words;
    uint32_t* to = launch.to + int64_t{BlockX()} * launch.row_words;
    for (int i = ThreadIndex(); i < launch.row_words; i += kThreads) {
      StoreGlobal(to + i, LoadGlobal(from + i));
    }
  }
};

}  // namespace chorus::device
