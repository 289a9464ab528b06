#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/segment/attention_plan.h"
#include "core/segment/key_units.h"

namespace chorus {

struct AttentionArgs;  // segment_attention.h, which includes this

// Where one row of a step looks: for every head of a layer, the softmax mass on each unit of its
// keys and, where asked for, their mean logit. SegmentAttentionCpu fills it from the weights that
// it multiplies values with anyway: a few additions a key, and no output changes by a bit. What it
// finds depends on the row's own intervals, slots and units only, bit for bit, as the outputs do.
//
// Serves one pass (one layer) after the other. Holds about num_heads * (2 num_keys / 64 +
// num_units) floats, once logits were wanted half as many more. Its user reads between passes;
// within one, threads write apart from each other.
class AttentionStatistics {
 public:
  // `run` of `plan` holds `row`. Keeps none of the references. REQUIRES: units in order.
  AttentionStatistics(const AttentionPlan& plan, const AttentionRun& run, int32_t row,
                      const KeyUnits& units, int32_t num_heads);

  int32_t row() const { return row_; }
  int32_t num_units() const { return num_units_; }

  // Whether the passes to come collect logits, too; at first they do not.
  void SetWantsLogits(bool wants_logits);
  bool wants_logits() const { return wants_logits_; }

  // Of the last pass, [num_heads, num_units]: softmax mass summed over the unit's keys, after
  // SegmentScaling. All zero for a row that sees no key.
  const std::vector<float>& mass() const { return mass_; }
  // The same, if logits were wanted: q k * softmax_scale, before softmax and SegmentScaling, mean
  // over the unit's keys that the row sees; NaN for none.
  const std::vector<float>& mean_logits() const { return mean_logits_; }

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
  // Keys [begin, end) of a block, counted from its first.
  struct Piece {
    int32_t begin = 0;
    int32_t end = 0;
    int32_t unit = 0;
    int32_t block = 0;
  };
  struct Block {
    int32_t key = 0;          // its first
    int32_t piece_begin = 0;  // its pieces are [piece_begin, next block's piece_begin)
    bool is_scaled = false;
  };

  void AppendInterval(const KeyInterval& interval, int32_t end, bool is_scaled,
                      const KeyUnits& units);
  int32_t BlockOf(int32_t key) const;
  void SumPieces(int32_t block, const float* values, float* sums) const;
  void FinishMass(int32_t head, const Part& others, const Part& segments);
  void FinishLogits(int32_t head);

  int32_t row_;
  int32_t num_heads_;
  int32_t num_units_;
  bool wants_logits_ = false;
  float temperature_ = 1.0f;            // of scaled blocks
  std::vector<Block> blocks_;           // ascending, and one more at the end
  std::vector<Piece> pieces_;           // ascending
  std::vector<int32_t> unit_num_keys_;  // [num_units] keys that the row sees
  int64_t block_stride_ = 0;            // of a head in block_max_
  int64_t piece_stride_ = 0;            // of a head in the two others
  std::vector<float> block_max_;        // [num_heads][block_stride]
  std::vector<float> weight_sums_;      // [num_heads][piece_stride]
  std::vector<float> logit_sums_;       // the same, once logits were wanted
  std::vector<float> mass_;
  std::vector<float> mean_logits_;
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
