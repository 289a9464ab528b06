#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/segment/attention_plan.h"
#include "core/segment/attention_window.h"
#include "core/segment/key_units.h"

namespace chorus {

struct AttentionArgs;  // segment_attention.h, which includes this

// Keys [begin, end) of a block, counted from its first, that belong to one unit.
struct KeyPiece {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t unit = 0;
  int32_t block = 0;
};

// A row of numbers for every head, zero at first. Each begins on a cache line of its own, which is
// aligned to vectors too, as different threads fill them.
template <typename T>
class HeadRows {
 public:
  void Resize(int32_t num_heads, size_t size) {
    num_lines_ = static_cast<int64_t>((size + kLineSize - 1) / kLineSize);
    lines_.resize(num_heads * num_lines_);
  }
  T* operator[](int32_t head) { return reinterpret_cast<T*>(lines_.data() + head * num_lines_); }
  const T* operator[](int32_t head) const {
    return reinterpret_cast<const T*>(lines_.data() + head * num_lines_);
  }
  bool empty() const { return lines_.empty(); }
  // Numbers from the begin of one row to that of the next.
  int64_t stride() const { return num_lines_ * static_cast<int64_t>(kLineSize); }

 private:
  static constexpr size_t kLineSize = 64 / sizeof(T);
  struct alignas(64) Line {
    T numbers[kLineSize] = {};
  };

  int64_t num_lines_ = 0;
  std::vector<Line> lines_;
};

// Where one row of a step looks: for every head of a layer, the softmax mass on each unit of its
// keys and, where asked for, their mean logit. SegmentAttentionCpu fills it from the weights that
// it multiplies values with anyway: a few additions a key, and no output changes by a bit. What it
// finds depends on the row's own intervals, slots and units only, bit for bit, as the outputs do.
//
// Serves one pass (one layer) after the other. Holds about num_heads * (2 num_keys / 64 + 3
// num_units) floats, once logits were wanted half as many more. Its user reads between passes;
// within one, threads write apart from each other.
class AttentionStatistics {
 public:
  // `run` of `plan` holds `row`; `window`: of the layers that are to come. Keeps none of the
  // references. REQUIRES: units in order.
  AttentionStatistics(const AttentionPlan& plan, const AttentionRun& run, int32_t row,
                      const KeyUnits& units, int32_t num_heads, const AttentionWindow& window);

  int32_t row() const { return row_; }
  int32_t num_units() const { return num_units_; }

  // Whether the passes to come collect logits, too; at first they do not.
  void SetWantsLogits(bool wants_logits);
  bool wants_logits() const { return wants_logits_; }

  // Of the last pass, [num_units]: softmax mass summed over the unit's keys, after SegmentScaling.
  // All zero for a row that sees no key.
  std::span<const float> mass(int32_t head) const { return UnitsOf(mass_, head); }
  // The same, if logits were wanted: q k * softmax_scale, before softmax and SegmentScaling, mean
  // over the unit's keys that the row sees; NaN for none.
  std::span<const float> mean_logits(int32_t head) const { return UnitsOf(mean_logits_, head); }
  // The sum of mass(head) over all passes.
  std::span<const double> mass_sum(int32_t head) const { return UnitsOf(mass_sums_, head); }

  // --- For the kernel. A block holds the keys [key, key + 64) of an interval, cut at its end and
  // counted from its begin; blocks of several heads are kKeyBlock floats apart.

  // `logits` of heads [head, head + num_heads), those of segment columns divided by the
  // temperature.
  void AddLogits(int32_t key, int32_t head, int32_t num_heads, const float* logits);
  // exp(logit - max[i]) of head + i. `weights` is aligned to vectors.
  void AddWeights(int32_t key, int32_t head, int32_t num_heads, const float* weights,
                  const float* max);
  // Once all blocks are in: a key's mass is exp(logit - max) * factor of the softmax that it is in.
  struct Part {
    float max = 0.0f;
    float factor = 0.0f;  // 0: nothing is in this part
  };
  void Finish(int32_t head, const Part& others, const Part& segments);

 private:
  struct Block {
    int32_t key = 0;          // its first
    int32_t piece_begin = 0;  // its pieces are [piece_begin, next block's piece_begin)
    bool is_scaled = false;
  };

  template <typename T>
  std::span<const T> UnitsOf(const HeadRows<T>& rows, int32_t head) const {
    return {rows[head], static_cast<size_t>(num_units_)};
  }
  void AppendInterval(const KeyInterval& interval, int32_t first_key, bool is_scaled,
                      const KeyUnits& units);
  int32_t BlockOf(int32_t key) const;
  std::span<const KeyPiece> PiecesOf(int32_t block) const;
  void FinishMass(int32_t head, const Part& others, const Part& segments);
  void FinishLogits(int32_t head);

  int32_t row_;
  int32_t num_heads_;
  int32_t num_units_;
  bool wants_logits_ = false;
  float temperature_ = 1.0f;            // of scaled blocks
  std::vector<Block> blocks_;           // ascending, and one more at the end
  std::vector<KeyPiece> pieces_;        // ascending
  std::vector<int32_t> unit_num_keys_;  // [num_units] keys that the row sees
  HeadRows<float> block_max_;           // [num_heads][blocks]
  HeadRows<float> weight_sums_;         // [num_heads][pieces]
  HeadRows<float> logit_sums_;          // the same, once logits were wanted
  HeadRows<float> mass_;                // [num_heads][num_units]
  HeadRows<float> mean_logits_;         // the same, once logits were wanted
  HeadRows<double> mass_sums_;          // [num_heads][num_units]
};

// Those of `statistics`, which ascend by row, that are of rows [row_begin, row_end).
inline std::span<AttentionStatistics> StatisticsOfRows(std::span<AttentionStatistics> statistics,
                                                       int32_t row_begin, int32_t row_end) {
  if (statistics.empty()) return {};
  const auto is_before = [](const AttentionStatistics& of, int32_t row) { return of.row() < row; };
  const auto begin = std::lower_bound(statistics.begin(), statistics.end(), row_begin, is_before);
  return {begin, std::lower_bound(begin, statistics.end(), row_end, is_before)};
}

// The oracle: naive, in double. mass and mean_logits as AttentionStatistics has them.
struct ReferenceStatistics {
  std::vector<double> mass;
  std::vector<double> mean_logits;
};
ReferenceStatistics AttentionStatisticsReference(const AttentionPlan& plan, const AttentionRun& run,
                                                 int32_t row, const KeyUnits& units,
                                                 const AttentionArgs& args);

}  // namespace chorus
