#include "core/kernels/attention_statistics.h"

#include <algorithm>
#include <limits>

#include "core/base/check.h"
#include "core/kernels/segment_attention_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/attention_statistics.cc"
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
constexpr int32_t kLanes = static_cast<int32_t>(hn::MaxLanes(FloatTag()));

// sums[i] = the sum of values[begin, end) of pieces[i], vectors counted from values[0].
void SumPieces(std::span<const KeyPiece> pieces, const float* values, float* sums) {
  const FloatTag d;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int32_t begin = pieces[i].begin, end = pieces[i].end;
    int32_t at = begin / kLanes * kLanes;
    const auto before = hn::FirstN(d, static_cast<size_t>(begin - at));
    auto sum = hn::IfThenZeroElse(before, hn::Load(d, values + at));
    if (at + kLanes < end) {
      for (at += kLanes; at + kLanes < end; at += kLanes) {
        sum = hn::Add(sum, hn::Load(d, values + at));
      }
      const auto inside = hn::FirstN(d, static_cast<size_t>(end - at));
      sum = hn::Add(sum, hn::IfThenElseZero(inside, hn::Load(d, values + at)));
    } else {
      sum = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(end - at)), sum);
    }
    sums[i] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// The same for heads whose values are kKeyBlock and whose sums are `stride` floats apart.
void SumPiecesOfHeads(std::span<const KeyPiece> pieces, int32_t num_heads, const float* values,
                      float* sums, int64_t stride) {
  for (int32_t i = 0; i < num_heads; ++i) {
    SumPieces(pieces, values + i * kKeyBlock, sums + i * stride);
  }
}

// values[i] = exp(values[i]); `size` is a multiple of the lanes.
void ExpInPlace(float* values, int64_t size) {
  const FloatTag d;
  for (int64_t i = 0; i < size; i += kLanes) {
    hn::Store(hn::Exp(d, hn::Load(d, values + i)), d, values + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {
namespace {

HWY_EXPORT(SumPiecesOfHeads);
HWY_EXPORT(ExpInPlace);

}  // namespace

AttentionStatistics::AttentionStatistics(const AttentionPlan& plan, const AttentionRun& run,
                                         int32_t row, const KeyUnits& units, int32_t num_heads,
                                         const AttentionWindow& window)
    : row_(row),
      num_heads_(num_heads),
      num_units_(units.num_units),
      unit_num_keys_(units.num_units, 0) {
  CHECK(row >= run.row_begin && row < run.row_end);
  if (run.scaling >= 0) temperature_ = plan.scalings[run.scaling].temperature;
  const bool is_full = window.is_full();
  const int32_t visible_end = run.query_begin + (row - run.row_begin) + 1;
  const int32_t first_position =
      is_full ? 0 : window.FirstPosition(run.position_begin + (row - run.row_begin));
  const int32_t interval_end = is_full ? run.interval_end : run.windowed_end;
  for (int32_t i = is_full ? run.interval_begin : run.windowed_begin; i < interval_end; ++i) {
    KeyInterval interval = plan.intervals[i];
    interval.end = std::min(interval.end, visible_end);
    const int32_t hidden_end = is_full ? 0 : first_position - interval.position_shift;
    const int32_t first_key = std::max(interval.begin, hidden_end);
    if (first_key >= interval.end) continue;
    AppendInterval(interval, first_key, run.scaling >= 0 && interval.is_segment, units);
  }
  block_max_.Resize(num_heads, blocks_.size());
  blocks_.push_back({std::numeric_limits<int32_t>::max(), static_cast<int32_t>(pieces_.size())});
  weight_sums_.Resize(num_heads, pieces_.size());
  mass_.Resize(num_heads, num_units_);
  mass_sums_.Resize(num_heads, num_units_);
}

void AttentionStatistics::SetWantsLogits(bool wants_logits) {
  wants_logits_ = wants_logits;
  if (!wants_logits || !mean_logits_.empty()) return;
  logit_sums_.Resize(num_heads_, pieces_.size());
  mean_logits_.Resize(num_heads_, num_units_);
}

// Appends the blocks of an interval from the one with first_key on, and their pieces. Blocks are
// counted from the interval's begin all the same.
void AttentionStatistics::AppendInterval(const KeyInterval& interval, int32_t first_key,
                                         bool is_scaled, const KeyUnits& units) {
  auto range =
      std::lower_bound(units.ranges.begin(), units.ranges.end(), first_key,
                       [](const KeyUnits::Range& range, int32_t key) { return range.end <= key; });
  const int32_t num_hidden = (first_key - interval.begin) / kKeyBlock * kKeyBlock;
  for (int32_t key = interval.begin + num_hidden; key < interval.end; key += kKeyBlock) {
    const int32_t block_end = std::min(key + kKeyBlock, interval.end);
    const int32_t visible = std::max(key, first_key);
    const auto block = static_cast<int32_t>(blocks_.size());
    blocks_.push_back({key, static_cast<int32_t>(pieces_.size()), is_scaled});
    for (; range != units.ranges.end() && range->begin < block_end; ++range) {
      const int32_t begin = std::max(range->begin, visible) - key;
      pieces_.push_back({begin, std::min(range->end, block_end) - key, range->unit, block});
      unit_num_keys_[range->unit] += pieces_.back().end - begin;
      if (range->end > block_end) break;  // the next block goes on with it
    }
  }
}

int32_t AttentionStatistics::BlockOf(int32_t key) const {
  const auto block = std::lower_bound(blocks_.begin(), blocks_.end(), key,
                                      [](const Block& b, int32_t key) { return b.key < key; });
  CHECK(block->key == key);
  return static_cast<int32_t>(block - blocks_.begin());
}

std::span<const KeyPiece> AttentionStatistics::PiecesOf(int32_t block) const {
  return {pieces_.data() + blocks_[block].piece_begin,
          pieces_.data() + blocks_[block + 1].piece_begin};
}

void AttentionStatistics::AddLogits(int32_t key, int32_t head, int32_t num_heads,
                                    const float* logits) {
  if (!wants_logits_) return;
  const int32_t block = BlockOf(key);
  float* sums = logit_sums_[head] + blocks_[block].piece_begin;
  HWY_DYNAMIC_DISPATCH(SumPiecesOfHeads)
  (PiecesOf(block), num_heads, logits, sums, logit_sums_.stride());
}

void AttentionStatistics::AddWeights(int32_t key, int32_t head, int32_t num_heads,
                                     const float* weights, const float* max) {
  const int32_t block = BlockOf(key);
  for (int32_t i = 0; i < num_heads; ++i) block_max_[head + i][block] = max[i];
  float* sums = weight_sums_[head] + blocks_[block].piece_begin;
  HWY_DYNAMIC_DISPATCH(SumPiecesOfHeads)
  (PiecesOf(block), num_heads, weights, sums, weight_sums_.stride());
}

void AttentionStatistics::Finish(int32_t head, const Part& others, const Part& segments) {
  FinishMass(head, others, segments);
  if (wants_logits_) FinishLogits(head);
}

void AttentionStatistics::FinishMass(int32_t head, const Part& others, const Part& segments) {
  float* factors = block_max_[head];  // of the blocks' weights
  const size_t num_blocks = blocks_.size() - 1;
  for (size_t block = 0; block < num_blocks; ++block) {
    const Part& part = blocks_[block].is_scaled ? segments : others;
    factors[block] = part.factor > 0.0f ? factors[block] - part.max : 0.0f;
  }
  HWY_DYNAMIC_DISPATCH(ExpInPlace)(factors, block_max_.stride());
  for (size_t block = 0; block < num_blocks; ++block) {
    factors[block] *= blocks_[block].is_scaled ? segments.factor : others.factor;
  }
  const float* sums = weight_sums_[head];
  float* mass = mass_[head];
  std::fill_n(mass, num_units_, 0.0f);
  for (size_t i = 0; i < pieces_.size();) {
    const int32_t unit = pieces_[i].unit;
    double sum = 0.0;
    for (; i < pieces_.size() && pieces_[i].unit == unit; ++i) {
      sum += double{factors[pieces_[i].block]} * sums[i];
    }
    mass[unit] += static_cast<float>(sum);
  }
  double* total = mass_sums_[head];
  for (int32_t unit = 0; unit < num_units_; ++unit) total[unit] += mass[unit];
}

void AttentionStatistics::FinishLogits(int32_t head) {
  const float* sums = logit_sums_[head];
  float* means = mean_logits_[head];
  std::fill_n(means, num_units_, 0.0f);
  for (size_t i = 0; i < pieces_.size();) {
    const int32_t unit = pieces_[i].unit;
    double sum = 0.0;
    for (; i < pieces_.size() && pieces_[i].unit == unit; ++i) {
      sum += blocks_[pieces_[i].block].is_scaled ? double{temperature_} * sums[i] : double{sums[i]};
    }
    means[unit] += static_cast<float>(sum / unit_num_keys_[unit]);
  }
  for (int32_t unit = 0; unit < num_units_; ++unit) {
    if (unit_num_keys_[unit] == 0) means[unit] = std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace chorus
#endif  // HWY_ONCE
