// PackedLinear where the processor has bfloat16 dot products (AVX512-BF16: VDPBF16PS), which do
// twice the multiply-adds of float32 ones. Written with intrinsics: the Highway of Debian 12 (1.0.3)
// has no target and no operation for them.
#include <algorithm>
#include <utility>

#include "core/kernels/bfloat16.h"
#include "core/kernels/packed_linear_task.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512vl,avx512bw,avx512bf16")
namespace chorus {
namespace {

constexpr int kHalf = kPanelColumns / 2;  // floats of one vector
// 2 * 14 accumulators, two weight vectors and a broadcast pair fill 31 of 32 registers.
constexpr int kTileRows = 14;
// As in packed_linear.cc: two pages cover the memory latency when weights are read once.
constexpr int64_t kPrefetchWords = 512;

__m512bh LoadPairs(const uint32_t* words) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(words));
}

// A tile of kRows x 2 vectors: y = bias + x W over num_pairs pairs of features.
template <int kRows>
void DotTile(const uint32_t* weights, int32_t num_pairs, const uint32_t* x, int64_t x_stride,
             const float* bias, float* y, int64_t y_stride) {
  __m512 low[kRows], high[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    low[r] = _mm512_loadu_ps(bias);
    high[r] = _mm512_loadu_ps(bias + kHalf);
  }
  for (int64_t j = 0; j < num_pairs; ++j) {
    const uint32_t* words = weights + j * kPanelColumns;
    _mm_prefetch(reinterpret_cast<const char*>(words + kPrefetchWords), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(words + kPrefetchWords + kHalf), _MM_HINT_T0);
    const __m512bh low_words = LoadPairs(words);
    const __m512bh high_words = LoadPairs(words + kHalf);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto pair = reinterpret_cast<__m512bh>(
          _mm512_set1_epi32(static_cast<int32_t>(x[r * x_stride + j])));
      low[r] = _mm512_dpbf16_ps(low[r], pair, low_words);
      high[r] = _mm512_dpbf16_ps(high[r], pair, high_words);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(y + r * y_stride, low[r]);
    _mm512_storeu_ps(y + r * y_stride + kHalf, high[r]);
  }
}

using TileFunction = void (*)(const uint32_t*, int32_t, const uint32_t*, int64_t, const float*,
                              float*, int64_t);

template <int... kRows>
TileFunction TileForRows(int num_rows, std::integer_sequence<int, kRows...>) {
  static constexpr TileFunction kTable[] = {&DotTile<kRows + 1>...};
  return kTable[num_rows - 1];
}

// All rows in tiles of nearly equal height. Each tile reads the whole panel, from L2 where it is too
// large for L1: cutting it into slices was measured up to 10 % slower, as y is then read and written
// once a slice.
void DotPanel(const LinearTask& task, float* y, int64_t y_stride) {
  const auto* weights = static_cast<const uint32_t*>(task.weights);
  const auto num_pairs = static_cast<int32_t>(NumPairs(task.in_features));
  const int32_t num_tiles = (task.num_rows + kTileRows - 1) / kTileRows;
  for (int32_t tile = 0; tile < num_tiles; ++tile) {
    const int32_t begin = tile * task.num_rows / num_tiles;
    const int32_t end = (tile + 1) * task.num_rows / num_tiles;
    const TileFunction function =
        TileForRows(end - begin, std::make_integer_sequence<int, kTileRows>());
    function(weights, num_pairs, task.x_pairs + begin * task.x_pairs_stride, task.x_pairs_stride,
             task.bias, y + begin * y_stride, y_stride);
  }
}

}  // namespace

bool HasBFloat16Dot() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl");
}

void RoundRowToPairs(const float* x, int64_t size, uint32_t* pairs) {
  constexpr int64_t kLanes = 16;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + i / 2),
                        reinterpret_cast<__m256i>(rounded));
  }
  for (; i < size; i += 2) {
    const uint32_t low = BFloat16FromFloat(x[i]);
    const uint32_t high = i + 1 < size ? BFloat16FromFloat(x[i + 1]) : 0;
    pairs[i / 2] = low | (high << 16);
  }
}

void RunDotTask(const LinearTask& task) {
  if (task.num_columns == kPanelColumns) {
    DotPanel(task, task.y, task.y_stride);
    return;
  }
  alignas(64) float padded[kMaxTaskRows * kPanelColumns];
  DotPanel(task, padded, kPanelColumns);
  for (int64_t r = 0; r < task.num_rows; ++r) {
    std::copy_n(padded + r * kPanelColumns, task.num_columns, task.y + r * task.y_stride);
  }
}

}  // namespace chorus
HWY_POP_ATTRIBUTES

#else

#include "core/base/check.h"

namespace chorus {

bool HasBFloat16Dot() { return false; }
void RoundRowToPairs(const float*, int64_t, uint32_t*) { CHECK(HasBFloat16Dot()); }
void RunDotTask(const LinearTask&) { CHECK(HasBFloat16Dot()); }

}  // namespace chorus
#endif
