#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/attention_statistics.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/segment_attention.h"

namespace chorus {
namespace {

// A key that the row sees, by one head.
struct SeenKey {
  int32_t unit = -1;  // -1: none
  bool is_scaled = false;
  double logit = 0.0;  // q k * softmax_scale
};

double LogitOf(const AttentionArgs& args, int64_t row_head, int64_t kv_offset) {
  const int64_t head_dim = args.shape.head_dim;
  double dot = 0.0;
  for (int64_t d = 0; d < head_dim; ++d) {
    const double k =
        args.kv.type == KvType::kFloat32
            ? static_cast<const float*>(args.kv.k)[kv_offset + d]
            : FloatFromBFloat16(static_cast<const uint16_t*>(args.kv.k)[kv_offset + d]);
    dot += args.q[row_head * head_dim + d] * k;
  }
  return dot * args.shape.softmax_scale;
}

std::vector<SeenKey> SeenKeys(const AttentionPlan& plan, const AttentionRun& run, int32_t row,
                              const KeyUnits& units, const AttentionArgs& args, int32_t head) {
  const AttentionShape& shape = args.shape;
  const int32_t kv_head = head / (shape.num_heads / shape.num_kv_heads);
  const int32_t query = run.query_begin + (row - run.row_begin);
  const int32_t position = run.position_begin + (row - run.row_begin);
  const bool is_full = args.window.is_full();
  const int32_t interval_begin = is_full ? run.interval_begin : run.windowed_begin;
  const int32_t interval_end = is_full ? run.interval_end : run.windowed_end;
  std::vector<SeenKey> keys;
  for (int32_t i = interval_begin; i < interval_end; ++i) {
    const KeyInterval& interval = plan.intervals[i];
    for (int32_t k = interval.begin; k < interval.end && k <= query; ++k) {
      if (!is_full && !args.window.Allows(position, k + interval.position_shift)) continue;
      const int64_t slot = plan.slot_table[run.table_begin + k];
      SeenKey key;
      for (const KeyUnits::Range& range : units.ranges) {
        if (k >= range.begin && k < range.end) key.unit = range.unit;
      }
      key.is_scaled = run.scaling >= 0 && interval.is_segment;
      key.logit = LogitOf(args, int64_t{row} * shape.num_heads + head,
                          (slot * shape.num_kv_heads + kv_head) * shape.head_dim);
      keys.push_back(key);
    }
  }
  return keys;
}

// log sum exp(logit / temperature) over the keys of one kind.
double LogSumExp(const std::vector<SeenKey>& keys, bool is_scaled, double temperature) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const SeenKey& key : keys) {
    if (key.is_scaled == is_scaled) largest = std::max(largest, key.logit / temperature);
  }
  double sum = 0.0;
  for (const SeenKey& key : keys) {
    if (key.is_scaled == is_scaled) sum += std::exp(key.logit / temperature - largest);
  }
  return sum > 0.0 ? largest + std::log(sum) : largest;
}

// A segment column's mass is softmax(z / T) within its kind times exp(S * lse + bias) over the sum
// of both kinds' weights; another's is its softmax times exp(lse) over that sum.
std::vector<double> Masses(const std::vector<SeenKey>& keys, const SegmentScaling& scaling,
                           bool has_scaled) {
  const double others = LogSumExp(keys, false, 1.0);
  const double scaled = LogSumExp(keys, true, scaling.temperature);
  const double merged = has_scaled ? scaling.scale * scaled + scaling.log_bias : scaled;
  const double largest = std::max(others, merged);
  const double total = largest + std::log(std::exp(others - largest) + std::exp(merged - largest));
  std::vector<double> masses;
  for (const SeenKey& key : keys) {
    masses.push_back(key.is_scaled
                         ? std::exp(key.logit / scaling.temperature - scaled + merged - total)
                         : std::exp(key.logit - total));
  }
  return masses;
}

}  // namespace

ReferenceStatistics AttentionStatisticsReference(const AttentionPlan& plan, const AttentionRun& run,
                                                 int32_t row, const KeyUnits& units,
                                                 const AttentionArgs& args) {
  const SegmentScaling scaling = run.scaling < 0 ? SegmentScaling() : plan.scalings[run.scaling];
  ReferenceStatistics result;
  for (int32_t head = 0; head < args.shape.num_heads; ++head) {
    const std::vector<SeenKey> keys = SeenKeys(plan, run, row, units, args, head);
    const bool has_scaled =
        std::any_of(keys.begin(), keys.end(), [](const SeenKey& key) { return key.is_scaled; });
    const std::vector<double> masses = Masses(keys, scaling, has_scaled);
    std::vector<double> mass(units.num_units, 0.0), logits(units.num_units, 0.0);
    std::vector<int32_t> num_keys(units.num_units, 0);
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].unit < 0) continue;
      mass[keys[i].unit] += masses[i];
      logits[keys[i].unit] += keys[i].logit;
      ++num_keys[keys[i].unit];
    }
    for (int32_t unit = 0; unit < units.num_units; ++unit) {
      result.mass.push_back(mass[unit]);
      result.mean_logits.push_back(logits[unit] / num_keys[unit]);  // 0 / 0 for none
    }
  }
  return result;
}

}  // namespace chorus
