#include "core/kernels/packed_linear.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/base/check.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/packed_linear_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/packed_linear.cc"
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace chorus {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;
using WordTag = hn::Repartition<uint32_t, FloatTag>;
using FloatVector = hn::Vec<FloatTag>;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
constexpr int kHalf = kPanelColumns / 2;

// 2 * 14 accumulators, two weight vectors and a broadcast x fill 31 of AVX-512's 32 registers;
// 2 * 6 + 3 fill 15 of the 16 that the other targets have.
constexpr int kTileRows = kLanes == 16 ? 14 : 6;

// Features that are expanded from bfloat16 at a time, an even number: as float32 (24 KB) they stay
// in L1 while the rows pass.
constexpr int32_t kSliceFeatures = 192;

// How far ahead of its use a weight is asked for when weights are read once: two pages cover the
// memory latency, and the hardware's own prefetcher stops at each page's end.
constexpr int32_t kPrefetchBytes = 2048;

HWY_INLINE void LoadWeights(const float* weights, int64_t k, int c, FloatVector& low,
                            FloatVector& high) {
  const FloatTag d;
  low = hn::LoadU(d, weights + k * kPanelColumns + c);
  high = hn::LoadU(d, weights + k * kPanelColumns + kHalf + c);
}

// Of feature k, whose word it shares with its neighbour: see LinearTask.
HWY_INLINE FloatVector FromWords(hn::Vec<WordTag> words, int64_t k) {
  const FloatTag d;
  const WordTag dw;
  return k % 2 == 0 ? hn::BitCast(d, hn::ShiftLeft<16>(words))
                    : hn::BitCast(d, hn::And(words, hn::Set(dw, 0xFFFF0000u)));
}

HWY_INLINE void LoadWeights(const uint32_t* weights, int64_t k, int c, FloatVector& low,
                            FloatVector& high) {
  const WordTag dw;
  const uint32_t* words = weights + k / 2 * kPanelColumns + c;
  low = FromWords(hn::LoadU(dw, words), k);
  high = FromWords(hn::LoadU(dw, words + kHalf), k);
}

// A tile of kRows x 2 vectors: y = init + x W, one chain of MulAdd in ascending k for each output.
// Passing y as init continues the chains of an earlier slice: a float32 keeps an accumulator's
// bits.
template <int kRows, typename Weight>
void LinearTile(const Weight* HWY_RESTRICT weights, int32_t num_features,
                const float* HWY_RESTRICT x, int64_t x_stride, const float* init,
                int64_t init_stride, float* y, int64_t y_stride) {
  const FloatTag d;
  for (int c = 0; c < kHalf; c += kLanes) {
    FloatVector low_sum[kRows], high_sum[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      low_sum[r] = hn::LoadU(d, init + r * init_stride + c);
      high_sum[r] = hn::LoadU(d, init + r * init_stride + kHalf + c);
    }
    const auto add_feature = [&](int64_t k) HWY_ATTR {
      FloatVector low, high;
      LoadWeights(weights, k, c, low, high);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const FloatVector x_rk = hn::Set(d, x[r * x_stride + k]);
        low_sum[r] = hn::MulAdd(x_rk, low, low_sum[r]);
        high_sum[r] = hn::MulAdd(x_rk, high, high_sum[r]);
      }
    };
    // Two features at a time: they share their bfloat16 words and a float32 prefetch.
    int64_t k = 0;
    for (; k + 2 <= num_features; k += 2) {
      constexpr int64_t kPairBytes = std::is_same_v<Weight, float>
                                         ? 2 * kPanelColumns * 4
                                         : kPanelColumns * 4;
      const char* ahead = reinterpret_cast<const char*>(weights) + k / 2 * kPairBytes;
      for (int64_t line = 0; line < kPairBytes; line += 64) {
        hwy::Prefetch(ahead + kPrefetchBytes + line);
      }
      add_feature(k);
      add_feature(k + 1);
    }
    if (k < num_features) add_feature(k);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      hn::StoreU(low_sum[r], d, y + r * y_stride + c);
      hn::StoreU(high_sum[r], d, y + r * y_stride + kHalf + c);
    }
  }
}

template <typename Weight>
using TileFunction = void (*)(const Weight*, int32_t, const float*, int64_t, const float*, int64_t,
                              float*, int64_t);

template <typename Weight, int... kRows>
constexpr TileFunction<Weight> TileForRows(int num_rows, std::integer_sequence<int, kRows...>) {
  constexpr TileFunction<Weight> kTable[] = {&LinearTile<kRows + 1, Weight>...};
  return kTable[num_rows - 1];
}

// All rows over one slice of features, in tiles of nearly equal height.
template <typename Weight>
void LinearSlice(const LinearTask& task, const Weight* weights, int32_t feature_begin,
                 int32_t num_features, float* y, int64_t y_stride) {
  const int32_t num_tiles = (task.num_rows + kTileRows - 1) / kTileRows;
  for (int32_t tile = 0; tile < num_tiles; ++tile) {
    const int32_t begin = tile * task.num_rows / num_tiles;
    const int32_t end = (tile + 1) * task.num_rows / num_tiles;
    const auto function =
        TileForRows<Weight>(end - begin, std::make_integer_sequence<int, kTileRows>());
    float* y_tile = y + begin * y_stride;
    const bool is_first = feature_begin == 0;
    function(weights, num_features, task.x + begin * task.x_stride + feature_begin, task.x_stride,
             is_first ? task.bias : y_tile, is_first ? 0 : y_stride, y_tile, y_stride);
  }
}

// bfloat16 [NumPairs(num_features)][32] words to float32 [num_features][32].
void ExpandSlice(const uint32_t* weights, int32_t num_features, float* out) {
  const FloatTag d;
  for (int64_t k = 0; k < num_features; ++k) {
    for (int c = 0; c < kHalf; c += kLanes) {
      FloatVector low, high;
      LoadWeights(weights, k, c, low, high);
      hn::StoreU(low, d, out + k * kPanelColumns + c);
      hn::StoreU(high, d, out + k * kPanelColumns + kHalf + c);
    }
  }
}

void LinearPanel(const LinearTask& task, float* y, int64_t y_stride) {
  const auto* words = static_cast<const uint32_t*>(task.weights);
  // Each tile of rows reads the whole panel, from L2 where it is too large for L1: cutting it into
  // slices was measured up to 10 % slower, as y is then read and written once a slice.
  if (!task.is_bfloat16) {
    LinearSlice(task, static_cast<const float*>(task.weights), 0, task.in_features, y, y_stride);
    return;
  }
  if (task.num_rows <= kTileRows) {
    LinearSlice(task, words, 0, task.in_features, y, y_stride);
    return;
  }
  HWY_ALIGN float expanded[kSliceFeatures * kPanelColumns];
  for (int32_t begin = 0; begin < task.in_features; begin += kSliceFeatures) {
    const int32_t num_features = std::min(kSliceFeatures, task.in_features - begin);
    ExpandSlice(words + int64_t{begin} / 2 * kPanelColumns, num_features, expanded);
    LinearSlice(task, expanded, begin, num_features, y, y_stride);
  }
}

}  // namespace

void RunLinearTask(const LinearTask& task) {
  if (task.num_columns == kPanelColumns) {
    LinearPanel(task, task.y, task.y_stride);
    return;
  }
  HWY_ALIGN float padded[kMaxTaskRows * kPanelColumns];
  LinearPanel(task, padded, kPanelColumns);
  for (int64_t r = 0; r < task.num_rows; ++r) {
    std::copy_n(padded + r * kPanelColumns, task.num_columns, task.y + r * task.y_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {
namespace {

HWY_EXPORT(RunLinearTask);

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Fewer floats than these are rounded by the caller alone: a parallel region costs a microsecond.
constexpr int64_t kParallelFloats = 32768;

// All rows as words of bfloat16 pairs, [num_rows, NumPairs(size)], in the team's scratch memory.
const uint32_t* RoundRows(const float* x, int64_t x_stride, int64_t num_rows, int64_t size,
                          ThreadPool& pool) {
  const int64_t stride = NumPairs(size);
  auto* pairs = static_cast<uint32_t*>(pool.Scratch(num_rows * stride * sizeof(uint32_t)));
  const int64_t num_tasks = num_rows * size < kParallelFloats ? 1 : pool.num_threads() * 2;
  pool.ParallelFor(num_tasks, [&](int64_t task) {
    for (int64_t r = task * num_rows / num_tasks; r < (task + 1) * num_rows / num_tasks; ++r) {
      RoundRowToPairs(x + r * x_stride, size, pairs + r * stride);
    }
  });
  return pairs;
}

}  // namespace

struct PackedLinear::Packed {
  WeightType type = WeightType::kFloat32;
  int32_t in_features = 0;
  int32_t out_features = 0;
  int64_t num_panels = 0;
  int64_t panel_bytes = 0;
  bool uses_dot = false;
  hwy::AlignedFreeUniquePtr<uint8_t[]> weights;  // [num_panels][panel_bytes], see LinearTask
  std::vector<float> bias;                       // [num_panels * 32], zeros where there is none

  uint8_t* panel(int64_t index) const { return weights.get() + index * panel_bytes; }
  void StorePanel(int64_t index, const float* rows);
};

// rows: [32][in_features], zeros for columns past the end.
void PackedLinear::Packed::StorePanel(int64_t index, const float* rows) {
  const auto at = [&](int64_t k, int64_t c) { return rows[c * int64_t{in_features} + k]; };
  if (type == WeightType::kFloat32) {
    auto* out = reinterpret_cast<float*>(panel(index));
    for (int64_t k = 0; k < in_features; ++k) {
      for (int64_t c = 0; c < kPanelColumns; ++c) out[k * kPanelColumns + c] = at(k, c);
    }
    return;
  }
  auto* out = reinterpret_cast<uint32_t*>(panel(index));
  for (int64_t k = 0; k < in_features; k += 2) {
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      const uint32_t low = BFloat16FromFloat(at(k, c));
      const uint32_t high = k + 1 < in_features ? BFloat16FromFloat(at(k + 1, c)) : 0;
      out[k / 2 * kPanelColumns + c] = low | (high << 16);
    }
  }
}

PackedLinear::PackedLinear(std::unique_ptr<Packed> packed) : packed_(std::move(packed)) {}
PackedLinear::~PackedLinear() = default;

int32_t PackedLinear::in_features() const { return packed_->in_features; }
int32_t PackedLinear::out_features() const { return packed_->out_features; }
int64_t PackedLinear::weight_bytes() const { return packed_->num_panels * packed_->panel_bytes; }

std::unique_ptr<const PackedLinear> PackedLinear::Create(WeightType type, int32_t in_features,
                                                         int32_t out_features,
                                                         const RowReader& read_row,
                                                         std::vector<float> bias,
                                                         BFloat16Products products) {
  CHECK(in_features > 0 && out_features > 0);
  CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == out_features);
  const int64_t num_panels = CeilDivide(out_features, kPanelColumns);
  const int64_t num_words = type == WeightType::kFloat32 ? in_features : NumPairs(in_features);
  const int64_t panel_bytes = num_words * 4 * kPanelColumns;
  CHECK(panel_bytes <= std::numeric_limits<int64_t>::max() / num_panels);

  auto packed = std::make_unique<Packed>();
  packed->type = type;
  packed->in_features = in_features;
  packed->out_features = out_features;
  packed->num_panels = num_panels;
  packed->panel_bytes = panel_bytes;
  packed->uses_dot = type == WeightType::kBFloat16 && products == BFloat16Products::kFastest &&
                     HasBFloat16Dot();
  packed->weights = hwy::AllocateAligned<uint8_t>(num_panels * panel_bytes);
  CHECK(packed->weights != nullptr);
  packed->bias = std::move(bias);
  packed->bias.resize(num_panels * kPanelColumns, 0.0f);

  std::vector<float> rows(int64_t{kPanelColumns} * in_features);
  for (int64_t p = 0; p < num_panels; ++p) {
    const int64_t begin = p * kPanelColumns;
    const int64_t num_columns = std::min<int64_t>(kPanelColumns, out_features - begin);
    std::fill(rows.begin() + num_columns * in_features, rows.end(), 0.0f);
    for (int64_t c = 0; c < num_columns; ++c) {
      read_row(static_cast<int32_t>(begin + c), rows.data() + c * in_features);
    }
    packed->StorePanel(p, rows.data());
  }
  return std::unique_ptr<const PackedLinear>(new PackedLinear(std::move(packed)));
}

bool PackedLinear::rounds_inputs() const { return packed_->uses_dot; }

void PackedLinear::Forward(const float* x, int64_t x_stride, int32_t num_rows, float* y,
                           int64_t y_stride, ThreadPool& pool) const {
  const Packed& packed = *packed_;
  CHECK(num_rows >= 0);
  CHECK(num_rows <= 1 || (x_stride >= packed.in_features && y_stride >= packed.out_features));
  if (num_rows == 0) return;
  const int64_t pairs_stride = NumPairs(packed.in_features);
  const uint32_t* x_pairs =
      packed.uses_dot ? RoundRows(x, x_stride, num_rows, packed.in_features, pool) : nullptr;
  const int64_t num_blocks = CeilDivide(num_rows, kMaxTaskRows);
  // The blocks of rows are the outer loop, so that x stays in L2 while the panels pass.
  pool.ParallelFor(num_blocks * packed.num_panels, [&](int64_t index) {
    const int64_t block = index / packed.num_panels;
    const int64_t panel = index % packed.num_panels;
    const int64_t row_begin = block * num_rows / num_blocks;
    const int64_t row_end = (block + 1) * num_rows / num_blocks;
    const int64_t column = panel * kPanelColumns;
    LinearTask task;
    task.weights = packed.panel(panel);
    task.is_bfloat16 = packed.type == WeightType::kBFloat16;
    task.in_features = packed.in_features;
    task.num_columns =
        static_cast<int32_t>(std::min<int64_t>(kPanelColumns, packed.out_features - column));
    task.num_rows = static_cast<int32_t>(row_end - row_begin);
    task.x = x + row_begin * x_stride;
    task.x_stride = x_stride;
    task.x_pairs = x_pairs + row_begin * pairs_stride;
    task.x_pairs_stride = pairs_stride;
    task.y = y + row_begin * y_stride + column;
    task.y_stride = y_stride;
    task.bias = packed.bias.data() + column;
    if (packed.uses_dot) {
      RunDotTask(task);
    } else {
      HWY_DYNAMIC_DISPATCH(RunLinearTask)(task);
    }
  });
}

void PackedLinear::ReadRow(int32_t row, float* out) const {
  const Packed& packed = *packed_;
  CHECK(row >= 0 && row < packed.out_features);
  const uint8_t* panel = packed.panel(row / kPanelColumns);
  const int32_t c = row % kPanelColumns;
  if (packed.type == WeightType::kFloat32) {
    const float* weights = reinterpret_cast<const float*>(panel) + c;
    for (int64_t k = 0; k < packed.in_features; ++k) out[k] = weights[k * kPanelColumns];
    return;
  }
  const uint32_t* words = reinterpret_cast<const uint32_t*>(panel) + c;
  for (int64_t k = 0; k < packed.in_features; ++k) {
    const uint32_t word = words[k / 2 * kPanelColumns];
    out[k] = FloatFromBFloat16(static_cast<uint16_t>(k % 2 == 0 ? word : word >> 16));
  }
}

}  // namespace chorus
#endif  // HWY_ONCE
