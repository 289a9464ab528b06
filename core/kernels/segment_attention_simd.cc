#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <span>

#include "core/base/check.h"
#include "core/kernels/attention_statistics.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/segment_attention.h"
#include "core/kernels/segment_attention_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/segment_attention_simd.cc"
#include "hwy/cache_control.h"
// foreach_target.h comes before the headers that it includes once a target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chorus {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;
using WordTag = hn::Repartition<uint32_t, FloatTag>;
using FloatVector = hn::Vec<FloatTag>;
using WordVector = hn::Vec<WordTag>;

constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Heads of one row that are computed together: 4 heads x 4 vectors fit the registers of AVX-512.
constexpr int kMaxGroup = 4;

// Heads of one row that are computed together, and who looks at them.
struct HeadGroup {
  const float* q = nullptr;                   // [heads][head_dim]
  int32_t head = 0;                           // the first
  std::span<AttentionStatistics> statistics;  // of the row; nearly always empty
};

// One block of keys and values, ready for use. Keys past num_keys hold anything.
struct Block {
  int32_t begin = 0;  // its first key
  int32_t num_keys = 0;
  HWY_ALIGN float
      keys[kMaxHeadDim * kKeyBlock];  // [head_dim][64]: a vector is one dim of many keys
  HWY_ALIGN float values[kKeyBlock * kMaxHeadDim];  // [64][padded], where value_rows point here
  const float* value_rows[kKeyBlock];               // [padded head_dim] each
  // Where one group of heads reads the values once, bfloat16 ones are expanded as they are used.
  bool has_bfloat16_rows = false;
  const uint16_t* bfloat16_rows[kKeyBlock];  // [head_dim] each, instead of value_rows
};

// Keys [begin, end) of a block that a row sees; those before them a window hides.
struct BlockKeys {
  int32_t begin = 0;
  int32_t end = 0;
};

// Of the block of keys [begin, end); begin >= end: none. A block's keys that a row does not see
// take no part in the row's result, so that it is the same whichever rows share the block.
HWY_INLINE BlockKeys VisibleKeys(const AttentionTask& task, const AttentionWindow& window,
                                 const KeySpan& span, int32_t row, int32_t begin, int32_t end) {
  if (span.full_begin <= begin && end <= span.full_end) return {0, end - begin};
  BlockKeys visible = {0, std::min(task.QueryIndex(row) + 1, end) - begin};
  if (!window.is_full()) {
    const int32_t first_key = window.FirstPosition(task.Position(row)) - span.position_shift;
    visible.begin = std::max(0, first_key - begin);
  }
  return visible;
}

// A word of bfloat16 holds two dims, the even one in its lower half.
HWY_INLINE FloatVector EvenFloats(WordVector words) {
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(words));
}
HWY_INLINE FloatVector OddFloats(WordVector words) {
  return hn::BitCast(FloatTag(), hn::And(words, hn::Set(WordTag(), 0xFFFF0000u)));
}

HWY_INLINE FloatVector LoadBFloat16(const uint16_t* values) {
  const hn::Rebind<uint16_t, FloatTag> dh;
  return EvenFloats(hn::PromoteTo(WordTag(), hn::LoadU(dh, values)));
}

#if HWY_TARGET != HWY_SCALAR  // which has no shuffles
// Transposes words [word, word + 4) of kLanes rows: out[i] holds word + i of every row. Blocks of
// 128 bits are loaded so that block b of vector j comes from row 4 b + j; then each 4 x 4 block
// is transposed in place.
HWY_INLINE void TransposeWords(const uint32_t* const* rows, int32_t word, WordVector (&out)[4]) {
  const WordTag dw;
  const hn::Repartition<uint64_t, WordTag> dd;
  WordVector v[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) v[j] = hn::LoadDup128(dw, rows[j] + word);
#pragma GCC unroll 4
  for (int b = 1; b < kLanes / 4; ++b) {
    const auto lower_blocks = hn::FirstN(dw, 4 * b);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      v[j] = hn::IfThenElse(lower_blocks, v[j], hn::LoadDup128(dw, rows[4 * b + j] + word));
    }
  }
  const auto t0 = hn::BitCast(dd, hn::InterleaveLower(dw, v[0], v[1]));
  const auto t1 = hn::BitCast(dd, hn::InterleaveUpper(dw, v[0], v[1]));
  const auto t2 = hn::BitCast(dd, hn::InterleaveLower(dw, v[2], v[3]));
  const auto t3 = hn::BitCast(dd, hn::InterleaveUpper(dw, v[2], v[3]));
  out[0] = hn::BitCast(dw, hn::InterleaveLower(dd, t0, t2));
  out[1] = hn::BitCast(dw, hn::InterleaveUpper(dd, t0, t2));
  out[2] = hn::BitCast(dw, hn::InterleaveLower(dd, t1, t3));
  out[3] = hn::BitCast(dw, hn::InterleaveUpper(dd, t1, t3));
}

// Keys of kLanes rows into columns [column, column + kLanes) of block.keys.
template <bool kIsBFloat16>
void TransposeKeys(const uint32_t* const* rows, int32_t num_words, float* columns) {
  const FloatTag d;
  for (int32_t word = 0; word < num_words; word += 4) {
    WordVector words[4];
    TransposeWords(rows, word, words);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if constexpr (kIsBFloat16) {
        float* out = columns + int64_t{word + i} * 2 * kKeyBlock;
        hn::Store(EvenFloats(words[i]), d, out);
        hn::Store(OddFloats(words[i]), d, out + kKeyBlock);
      } else {
        hn::Store(hn::BitCast(d, words[i]), d, columns + int64_t{word + i} * kKeyBlock);
      }
    }
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

float ElementAt(const KvView& kv, const void* base, int64_t index) {
  if (kv.type == KvType::kFloat32) return static_cast<const float*>(base)[index];
  return FloatFromBFloat16(static_cast<const uint16_t*>(base)[index]);
}

void LoadKeys(const AttentionArgs& args, const int64_t* offsets, Block& block) {
  const int32_t head_dim = args.shape.head_dim;
#if HWY_TARGET != HWY_SCALAR
  const bool is_bfloat16 = args.kv.type == KvType::kBFloat16;
  const int32_t num_words = is_bfloat16 ? head_dim / 2 : head_dim;
  const int64_t element_bytes = is_bfloat16 ? 2 : 4;
  if (head_dim % 8 == 0) {  // whole blocks of 128 bits
    for (int32_t column = 0; column < block.num_keys; column += kLanes) {
      const uint32_t* rows[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        // Columns past the last key repeat it: unused, but they must be readable.
        const int64_t offset = offsets[std::min(column + j, block.num_keys - 1)];
        rows[j] = reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(args.kv.k) +
                                                    offset * element_bytes);
      }
      if (is_bfloat16) {
        TransposeKeys<true>(rows, num_words, block.keys + column);
      } else {
        TransposeKeys<false>(rows, num_words, block.keys + column);
      }
    }
    return;
  }
#endif
  for (int32_t j = 0; j < block.num_keys; ++j) {
    for (int32_t i = 0; i < head_dim; ++i) {
      block.keys[i * kKeyBlock + j] = ElementAt(args.kv, args.kv.k, offsets[j] + i);
    }
  }
}

void LoadValues(const AttentionArgs& args, const int64_t* offsets, bool is_read_once,
                Block& block) {
  const FloatTag d;
  const int32_t head_dim = args.shape.head_dim;
  const int32_t padded = PaddedHeadDim(head_dim);
  const bool is_bfloat16 = args.kv.type == KvType::kBFloat16;
  block.has_bfloat16_rows = false;
  if (!is_bfloat16 && padded == head_dim) {
    for (int32_t j = 0; j < block.num_keys; ++j) {
      block.value_rows[j] = static_cast<const float*>(args.kv.v) + offsets[j];
    }
    return;
  }
  block.has_bfloat16_rows = is_bfloat16 && padded == head_dim && is_read_once;
  if (block.has_bfloat16_rows) {
    for (int32_t j = 0; j < block.num_keys; ++j) {
      block.bfloat16_rows[j] = static_cast<const uint16_t*>(args.kv.v) + offsets[j];
    }
    return;
  }
  for (int32_t j = 0; j < block.num_keys; ++j) {
    float* out = block.values + int64_t{j} * padded;
    block.value_rows[j] = out;
    int32_t i = 0;
    if (is_bfloat16) {
      const uint16_t* row = static_cast<const uint16_t*>(args.kv.v) + offsets[j];
      for (; i + kLanes <= head_dim; i += kLanes) {
        hn::Store(LoadBFloat16(row + i), d, out + i);
      }
    }
    for (; i < head_dim; ++i) out[i] = ElementAt(args.kv, args.kv.v, offsets[j] + i);
    for (; i < padded; ++i) out[i] = 0.0f;
  }
}

// Offset in elements of the task's kv head of key `key` of its sequence.
HWY_INLINE int64_t KvOffset(const AttentionPlan& plan, const AttentionTask& task,
                            const AttentionArgs& args, int32_t key) {
  const int64_t slot = plan.slot_table[task.tile.table_begin + key];
  CHECK(slot >= 0 && slot < args.kv.num_slots);
  return (slot * args.shape.num_kv_heads + task.kv_head) * args.shape.head_dim;
}

// Asks for keys and values [begin, end): they lie scattered, where no hardware prefetcher looks.
void PrefetchBlock(const AttentionPlan& plan, const AttentionTask& task, const AttentionArgs& args,
                   int32_t begin, int32_t end) {
  const int64_t element_bytes = args.kv.type == KvType::kBFloat16 ? 2 : 4;
  const int64_t row_bytes = args.shape.head_dim * element_bytes;
  constexpr int64_t kCacheLine = 64;
  for (int32_t key = begin; key < end; ++key) {
    const int64_t offset = KvOffset(plan, task, args, key) * element_bytes;
    for (int64_t byte = 0; byte < row_bytes; byte += kCacheLine) {
      hwy::Prefetch(static_cast<const uint8_t*>(args.kv.k) + offset + byte);
      hwy::Prefetch(static_cast<const uint8_t*>(args.kv.v) + offset + byte);
    }
  }
}

// Keys [begin, end) of the task's sequence.
void LoadBlock(const AttentionPlan& plan, const AttentionTask& task, const AttentionArgs& args,
               int32_t begin, int32_t end, Block& block) {
  block.begin = begin;
  block.num_keys = end - begin;
  int64_t offsets[kKeyBlock];
  for (int32_t j = 0; j < block.num_keys; ++j) {
    offsets[j] = KvOffset(plan, task, args, begin + j);
  }
  LoadKeys(args, offsets, block);
  const bool is_read_once =
      task.tile.row_end - task.tile.row_begin == 1 && task.num_heads <= kMaxGroup;
  LoadValues(args, offsets, is_read_once, block);
}

// logits[g][column + lane] = factor * q_g . k for kVectors vectors of keys: one chain of MulAdd in
// ascending dim for each, whatever kGroup and kVectors.
template <int kGroup, int kVectors>
HWY_INLINE void Logits(const float* q, int32_t head_dim, const float* keys, float factor,
                       float (*logits)[kKeyBlock], int32_t column) {
  const FloatTag d;
  FloatVector sums[kGroup][kVectors];
#pragma GCC unroll 16
  for (int g = 0; g < kGroup; ++g) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[g][v] = hn::Zero(d);
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    FloatVector key[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      key[v] = hn::Load(d, keys + i * kKeyBlock + column + v * kLanes);
    }
#pragma GCC unroll 16
    for (int g = 0; g < kGroup; ++g) {
      const FloatVector q_i = hn::Set(d, q[g * int64_t{head_dim} + i]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[g][v] = hn::MulAdd(q_i, key[v], sums[g][v]);
    }
  }
  const FloatVector factors = hn::Set(d, factor);
#pragma GCC unroll 16
  for (int g = 0; g < kGroup; ++g) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(hn::Mul(sums[g][v], factors), d, logits[g] + column + v * kLanes);
    }
  }
}

// Logits become exp(logit - max) over the first num_keys of the block, zero past them. Updates max
// and sum, and returns what the values so far are to be multiplied by.
float SoftmaxBlock(int32_t num_keys, float* logits, float& max, float& sum) {
  const FloatTag d;
  FloatVector block_max = hn::Set(d, kMinusInfinity);
  for (int32_t j = 0; j < num_keys; j += kLanes) {
    const auto is_key = hn::FirstN(d, static_cast<size_t>(num_keys - j));
    const FloatVector logit =
        hn::IfThenElse(is_key, hn::Load(d, logits + j), hn::Set(d, kMinusInfinity));
    hn::Store(logit, d, logits + j);
    block_max = hn::Max(block_max, logit);
  }
  const float new_max = std::max(max, hn::GetLane(hn::MaxOfLanes(d, block_max)));
  // Only where every logit is minus infinity: any finite reference gives weights of zero then.
  const float reference = new_max == kMinusInfinity ? 0.0f : new_max;
  FloatVector block_sum = hn::Zero(d);
  for (int32_t j = 0; j < num_keys; j += kLanes) {
    const FloatVector weight = hn::Exp(d, hn::Sub(hn::Load(d, logits + j), hn::Set(d, reference)));
    hn::Store(weight, d, logits + j);
    block_sum = hn::Add(block_sum, weight);
  }
  const float correction = max == new_max          ? 1.0f
                           : max == kMinusInfinity ? 0.0f
                                                   : std::exp(max - new_max);
  sum = sum * correction + hn::GetLane(hn::SumOfLanes(d, block_sum));
  max = new_max;
  return correction;
}

template <bool kIsBFloat16>
HWY_INLINE FloatVector LoadValue(const Block& block, int32_t key, int32_t dim) {
  if constexpr (kIsBFloat16) return LoadBFloat16(block.bfloat16_rows[key] + dim);
  return hn::LoadU(FloatTag(), block.value_rows[key] + dim);
}

// values[g] = values[g] * corrections[g] + sum_j weights[g][j] v_j over kVectors vectors of dims.
template <int kGroup, int kVectors, bool kIsBFloat16>
HWY_INLINE void AddValues(const float (*weights)[kKeyBlock], const float* corrections,
                          const Block& block, BlockKeys visible, int32_t dim, float* values,
                          int32_t padded) {
  const FloatTag d;
  FloatVector sums[kGroup][kVectors];
#pragma GCC unroll 16
  for (int g = 0; g < kGroup; ++g) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const float* old = values + g * int64_t{padded} + dim + v * kLanes;
      sums[g][v] = hn::Mul(hn::Load(d, old), hn::Set(d, corrections[g]));
    }
  }
  for (int32_t j = visible.begin; j < visible.end; ++j) {
    FloatVector value[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      value[v] = LoadValue<kIsBFloat16>(block, j, dim + v * kLanes);
    }
#pragma GCC unroll 16
    for (int g = 0; g < kGroup; ++g) {
      const FloatVector weight = hn::Set(d, weights[g][j]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[g][v] = hn::MulAdd(weight, value[v], sums[g][v]);
    }
  }
#pragma GCC unroll 16
  for (int g = 0; g < kGroup; ++g) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(sums[g][v], d, values + g * int64_t{padded} + dim + v * kLanes);
    }
  }
}

template <int kGroup, bool kIsBFloat16>
void AddAllValues(const float (*weights)[kKeyBlock], const float* corrections, const Block& block,
                  BlockKeys visible, int32_t head_dim, float* values) {
  const int32_t padded = PaddedHeadDim(head_dim);
  int32_t dim = 0;
  for (; dim + 4 * kLanes <= padded; dim += 4 * kLanes) {
    AddValues<kGroup, 4, kIsBFloat16>(weights, corrections, block, visible, dim, values, padded);
  }
  for (; dim < padded; dim += kLanes) {
    AddValues<kGroup, 1, kIsBFloat16>(weights, corrections, block, visible, dim, values, padded);
  }
}

// One block for the kGroup heads of one row. state: of the first of them.
template <int kGroup>
void UpdateGroup(const HeadGroup& heads, int32_t head_dim, float factor, const Block& block,
                 BlockKeys visible, const SoftmaxState& state) {
  const float* q = heads.q;
  HWY_ALIGN float weights[kGroup][kKeyBlock];
  const int32_t num_keys = visible.end;
  int32_t column = 0;
  for (; num_keys - column > 3 * kLanes; column += 4 * kLanes) {
    Logits<kGroup, 4>(q, head_dim, block.keys, factor, weights, column);
  }
  switch ((num_keys - column + kLanes - 1) / kLanes) {
    case 3:
      Logits<kGroup, 3>(q, head_dim, block.keys, factor, weights, column);
      break;
    case 2:
      Logits<kGroup, 2>(q, head_dim, block.keys, factor, weights, column);
      break;
    case 1:
      Logits<kGroup, 1>(q, head_dim, block.keys, factor, weights, column);
      break;
    default:
      break;
  }
  for (AttentionStatistics& statistics : heads.statistics) {
    statistics.AddLogits(block.begin, heads.head, kGroup, weights[0]);
  }
  if (visible.begin > 0) [[unlikely]] {
    for (int g = 0; g < kGroup; ++g) std::fill_n(weights[g], visible.begin, kMinusInfinity);
  }
  float corrections[kGroup];
  for (int g = 0; g < kGroup; ++g) {
    corrections[g] = SoftmaxBlock(num_keys, weights[g], state.max[g], state.sum[g]);
  }
  for (AttentionStatistics& statistics : heads.statistics) {
    statistics.AddWeights(block.begin, heads.head, kGroup, weights[0], state.max);
  }
  if (block.has_bfloat16_rows) {
    AddAllValues<kGroup, true>(weights, corrections, block, visible, head_dim, state.values);
  } else {
    AddAllValues<kGroup, false>(weights, corrections, block, visible, head_dim, state.values);
  }
}

// `heads`: all of the task, of one row.
void UpdateRow(HeadGroup heads, const AttentionTask& task, int32_t head_dim, float factor,
               const Block& block, BlockKeys visible, SoftmaxState state) {
  const int32_t padded = PaddedHeadDim(head_dim);
  for (int32_t head = 0; head < task.num_heads;) {
    const int32_t group = std::min(kMaxGroup, task.num_heads - head);
    switch (group) {
      case 1:
        UpdateGroup<1>(heads, head_dim, factor, block, visible, state);
        break;
      case 2:
        UpdateGroup<2>(heads, head_dim, factor, block, visible, state);
        break;
      case 3:
        UpdateGroup<3>(heads, head_dim, factor, block, visible, state);
        break;
      default:
        UpdateGroup<4>(heads, head_dim, factor, block, visible, state);
        break;
    }
    head += group;
    heads.q += int64_t{group} * head_dim;
    heads.head += group;
    state.max += group;
    state.sum += group;
    state.values += int64_t{group} * padded;
  }
}

void ClearState(const SoftmaxState& state, int32_t num_queries, int32_t padded) {
  std::fill_n(state.max, num_queries, kMinusInfinity);
  std::fill_n(state.sum, num_queries, 0.0f);
  std::fill_n(state.values, int64_t{num_queries} * padded, 0.0f);
}

// total += span, queries [0, num_queries): o = sum_i exp(max_i - max) values_i, and so the sum.
void MergeState(const SoftmaxState& span, int32_t num_queries, int32_t padded,
                const SoftmaxState& total) {
  const FloatTag d;
  for (int32_t i = 0; i < num_queries; ++i) {
    const float max = std::max(total.max[i], span.max[i]);
    if (span.max[i] == kMinusInfinity) continue;
    if (total.max[i] == kMinusInfinity) {  // the usual case: the first span is the only one
      total.max[i] = max;
      total.sum[i] = span.sum[i];
      std::copy_n(span.values + int64_t{i} * padded, padded, total.values + int64_t{i} * padded);
      continue;
    }
    const float total_weight = std::exp(total.max[i] - max);
    const float span_weight = std::exp(span.max[i] - max);
    total.max[i] = max;
    total.sum[i] = total.sum[i] * total_weight + span.sum[i] * span_weight;
    for (int32_t dim = 0; dim < padded; dim += kLanes) {
      float* out = total.values + int64_t{i} * padded + dim;
      const FloatVector kept = hn::Mul(hn::Load(d, out), hn::Set(d, total_weight));
      const FloatVector added = hn::Load(d, span.values + int64_t{i} * padded + dim);
      hn::Store(hn::MulAdd(added, hn::Set(d, span_weight), kept), d, out);
    }
  }
}

// Factors of the two parts' values in the output, and the merged log-sum-exp. An empty part has
// no weight, whatever the scale and bias.
struct MergedParts {
  float others_factor = 0.0f;
  float segments_factor = 0.0f;
  float log_sum_exp = kMinusInfinity;
};

MergedParts MergeParts(float others_max, float others_sum, float segments_max, float segments_sum,
                       const SegmentScaling& scaling) {
  MergedParts merged;
  const bool has_others = others_sum > 0.0f, has_segments = segments_sum > 0.0f;
  if (has_others && !has_segments) {
    return {1.0f / others_sum, 0.0f, others_max + std::log(others_sum)};
  }
  const float others = has_others ? others_max + std::log(others_sum) : kMinusInfinity;
  const float segments =
      has_segments ? scaling.scale * (segments_max + std::log(segments_sum)) + scaling.log_bias
                   : kMinusInfinity;
  const float max = std::max(others, segments);
  if (max == kMinusInfinity) return merged;
  const float others_weight = std::exp(others - max);
  const float segments_weight = std::exp(segments - max);
  const float total = others_weight + segments_weight;
  if (has_others) merged.others_factor = others_weight / (total * others_sum);
  if (has_segments) merged.segments_factor = segments_weight / (total * segments_sum);
  merged.log_sum_exp = max + std::log(total);
  return merged;
}

}  // namespace

void AttentionSpan(const AttentionPlan& plan, const AttentionTask& task, const AttentionArgs& args,
                   const KeySpan& span, const SoftmaxState& state) {
  const int32_t head_dim = args.shape.head_dim;
  const int32_t padded = PaddedHeadDim(head_dim);
  ClearState(state, task.num_queries(), padded);
  const float temperature = span.is_scaled ? plan.scalings[task.tile.scaling].temperature : 1.0f;
  const float factor = args.shape.softmax_scale / temperature;
  const auto statistics = StatisticsOfRows(args.statistics, task.tile.row_begin, task.tile.row_end);
  Block block;
  PrefetchBlock(plan, task, args, span.begin, std::min(span.begin + kKeyBlock, span.end));
  for (int32_t begin = span.begin; begin < span.end; begin += kKeyBlock) {
    const int32_t end = std::min(begin + kKeyBlock, span.end);
    LoadBlock(plan, task, args, begin, end, block);
    PrefetchBlock(plan, task, args, end, std::min(end + kKeyBlock, span.end));
    for (int32_t row = task.tile.row_begin; row < task.tile.row_end; ++row) {
      const BlockKeys visible = VisibleKeys(task, args.window, span, row, begin, end);
      if (visible.begin >= visible.end) continue;
      const int32_t query = (row - task.tile.row_begin) * task.num_heads;
      const SoftmaxState row_state = {state.max + query, state.sum + query,
                                      state.values + int64_t{query} * padded};
      const float* q = args.q + (int64_t{row} * args.shape.num_heads + task.head_begin) * head_dim;
      UpdateRow({q, task.head_begin, StatisticsOfRows(statistics, row, row + 1)}, task, head_dim,
                factor, block, visible, row_state);
    }
  }
}

void FinishTask(const AttentionPlan& plan, const TilePlan& tiles, const AttentionTask& task,
                const AttentionArgs& args, const SpanState& span_state) {
  const int32_t head_dim = args.shape.head_dim;
  const int32_t padded = PaddedHeadDim(head_dim);
  const int32_t num_queries = task.num_queries();
  HWY_ALIGN float values[2][kMaxTaskQueries * kMaxHeadDim];
  float max[2][kMaxTaskQueries], sum[2][kMaxTaskQueries];
  const SoftmaxState others = {max[0], sum[0], values[0]};
  const SoftmaxState segments = {max[1], sum[1], values[1]};
  const bool is_scaled = task.tile.scaling >= 0;
  ClearState(others, num_queries, padded);
  ClearState(segments, num_queries, is_scaled ? padded : 0);

  for (int32_t i = task.tile.span_begin; i < task.tile.span_end; ++i) {
    const KeySpan& span = tiles.spans[i];
    MergeState(span_state(span), num_queries, padded, span.is_scaled ? segments : others);
  }

  const SegmentScaling scaling = is_scaled ? plan.scalings[task.tile.scaling] : SegmentScaling();
  const auto statistics = StatisticsOfRows(args.statistics, task.tile.row_begin, task.tile.row_end);
  for (int32_t i = 0; i < num_queries; ++i) {
    const MergedParts merged = MergeParts(max[0][i], sum[0][i], max[1][i], sum[1][i], scaling);
    const int64_t row = task.tile.row_begin + i / task.num_heads;
    const int64_t row_head = row * args.shape.num_heads + task.head_begin + i % task.num_heads;
    float* out = args.out + row_head * head_dim;
    for (int32_t dim = 0; dim < head_dim; ++dim) {
      out[dim] = values[0][i * padded + dim] * merged.others_factor;
      if (is_scaled) out[dim] += values[1][i * padded + dim] * merged.segments_factor;
    }
    if (args.log_sum_exp != nullptr) args.log_sum_exp[row_head] = merged.log_sum_exp;
    const int32_t at = static_cast<int32_t>(row);
    for (AttentionStatistics& of : StatisticsOfRows(statistics, at, at + 1)) {
      of.Finish(task.head_begin + i % task.num_heads, {max[0][i], merged.others_factor},
                {max[1][i], merged.segments_factor});
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {
namespace {

HWY_EXPORT(AttentionSpan);
HWY_EXPORT(FinishTask);

}  // namespace

void RunAttentionSpan(const AttentionPlan& plan, const AttentionTask& task,
                      const AttentionArgs& args, const KeySpan& span, const SoftmaxState& state) {
  HWY_DYNAMIC_DISPATCH(AttentionSpan)(plan, task, args, span, state);
}

void FinishAttentionTask(const AttentionPlan& plan, const TilePlan& tiles,
                         const AttentionTask& task, const AttentionArgs& args,
                         const SpanState& span_state) {
  HWY_DYNAMIC_DISPATCH(FinishTask)(plan, tiles, task, args, span_state);
}

}  // namespace chorus
#endif  // HWY_ONCE
