#include <cmath>
#include <limits>
#include <vector>

#include "core/base/check.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/segment_attention.h"

namespace chorus {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

double KvAt(const KvView& kv, const void* base, int64_t index) {
  if (kv.type == KvType::kFloat32) return static_cast<const float*>(base)[index];
  return FloatFromBFloat16(static_cast<const uint16_t*>(base)[index]);
}

// One softmax: the columns of one kind that a row sees.
struct Part {
  std::vector<double> logits;
  std::vector<int64_t> kv_offsets;  // of element 0 of each column's key and value

  double LogSumExp() const {
    double largest = kMinusInfinity;
    for (double logit : logits) largest = std::max(largest, logit);
    if (largest == kMinusInfinity) return kMinusInfinity;
    double sum = 0.0;
    for (double logit : logits) sum += std::exp(logit - largest);
    return largest + std::log(sum);
  }

  // out += factor * softmax(logits) V.
  void AddValues(const KvView& kv, double log_sum_exp, double factor,
                 std::vector<double>& out) const {
    for (size_t j = 0; j < logits.size(); ++j) {
      const double weight = factor * std::exp(logits[j] - log_sum_exp);
      for (size_t d = 0; d < out.size(); ++d) {
        out[d] += weight * KvAt(kv, kv.v, kv_offsets[j] + static_cast<int64_t>(d));
      }
    }
  }
};

void ReferenceRow(const AttentionPlan& plan, const AttentionRun& run, const AttentionArgs& args,
                  int32_t row, int32_t head) {
  const AttentionShape& shape = args.shape;
  const SegmentScaling scaling = run.scaling < 0 ? SegmentScaling() : plan.scalings[run.scaling];
  const int64_t head_dim = shape.head_dim;
  const int32_t kv_head = head / (shape.num_heads / shape.num_kv_heads);
  const int32_t query = run.query_begin + (row - run.row_begin);
  const int64_t row_head = int64_t{row} * shape.num_heads + head;
  const int32_t position = run.position_begin + (row - run.row_begin);
  const float* q = args.q + row_head * head_dim;
  const AttentionWindow& window = args.window;
  const int32_t interval_begin = window.is_full() ? run.interval_begin : run.windowed_begin;
  const int32_t interval_end = window.is_full() ? run.interval_end : run.windowed_end;

  Part others, segments;
  for (int32_t i = interval_begin; i < interval_end; ++i) {
    const KeyInterval& interval = plan.intervals[i];
    const bool is_scaled = run.scaling >= 0 && interval.is_segment;
    Part& part = is_scaled ? segments : others;
    for (int32_t k = interval.begin; k < interval.end && k <= query; ++k) {
      if (!window.is_full() && !window.Allows(position, k + interval.position_shift)) continue;
      const int64_t slot = plan.slot_table[run.table_begin + k];
      const int64_t offset = (slot * shape.num_kv_heads + kv_head) * head_dim;
      double dot = 0.0;
      for (int64_t d = 0; d < head_dim; ++d) dot += q[d] * KvAt(args.kv, args.kv.k, offset + d);
      const double logit = dot * shape.softmax_scale;
      part.logits.push_back(is_scaled ? logit / scaling.temperature : logit);
      part.kv_offsets.push_back(offset);
    }
  }

  const double lse_others = others.LogSumExp();
  const double lse_segments = segments.LogSumExp();
  // An empty part has no weight, whatever the scale and bias.
  const double scaled_lse =
      segments.logits.empty() ? kMinusInfinity : scaling.scale * lse_segments + scaling.log_bias;
  const double largest = std::max(lse_others, scaled_lse);
  std::vector<double> out(head_dim, 0.0);
  double lse = kMinusInfinity;
  if (largest != kMinusInfinity) {
    lse = largest + std::log(std::exp(lse_others - largest) + std::exp(scaled_lse - largest));
    others.AddValues(args.kv, lse_others, std::exp(lse_others - lse), out);
    segments.AddValues(args.kv, lse_segments, std::exp(scaled_lse - lse), out);
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    args.out[row_head * head_dim + d] = static_cast<float>(out[d]);
  }
  if (args.log_sum_exp != nullptr) args.log_sum_exp[row_head] = static_cast<float>(lse);
}

}  // namespace

void SegmentAttentionReference(const AttentionPlan& plan, const AttentionArgs& args) {
  CHECK(args.shape.num_kv_heads > 0 && args.shape.num_heads % args.shape.num_kv_heads == 0);
  for (const AttentionRun& run : plan.runs) {
    for (int32_t row = run.row_begin; row < run.row_end; ++row) {
      for (int32_t head = 0; head < args.shape.num_heads; ++head) {
        ReferenceRow(plan, run, args, row, head);
      }
    }
  }
}

}  // namespace chorus
