#include "core/model/logit_combiner.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/check.h"
#include "core/model/logit_math.h"

namespace chorus {
namespace {

using Rows = std::vector<const float*>;

// In double, so that the order of rows hardly matters.
void MeanOfLogits(const Rows& rows, const std::vector<float>& weights, int32_t vocab_size,
                  float* out) {
  const double equal = 1.0 / static_cast<double>(rows.size());
  for (int32_t i = 0; i < vocab_size; ++i) {
    double sum = 0.0;
    for (size_t r = 0; r < rows.size(); ++r) {
      // A weight of zero takes the row out, even where it is infinite.
      if (weights.empty()) {
        sum += rows[r][i];
      } else if (weights[r] != 0.0f) {
        sum += double{weights[r]} * rows[r][i];
      }
    }
    out[i] = static_cast<float>(weights.empty() ? sum * equal : sum);
  }
}

// Written so that NaN wins.
void MaxOfRows(const Rows& rows, const std::vector<float>& shifts, int32_t vocab_size, float* out) {
  for (int32_t i = 0; i < vocab_size; ++i) {
    float largest = rows[0][i] + shifts[0];
    for (size_t r = 1; r < rows.size(); ++r) {
      const float value = rows[r][i] + shifts[r];
      if (!(value <= largest)) largest = std::isnan(largest) ? largest : value;
    }
    out[i] = largest;
  }
}

void SubtractLogSumExp(int32_t vocab_size, float* row) {
  const float total = static_cast<float>(LogSumExp(row, vocab_size));
  for (int32_t i = 0; i < vocab_size; ++i) row[i] -= total;
}

}  // namespace

void CombineLogits(CombineRule rule, const Rows& rows, const std::vector<float>& weights,
                   int32_t vocab_size, float* out) {
  CHECK(!rows.empty() && (weights.empty() || weights.size() == rows.size()));
  CHECK(rule != CombineRule::kNone || rows.size() == 1);
  if (rule == CombineRule::kNone) {
    if (rows[0] != out) std::copy_n(rows[0], vocab_size, out);
  } else if (rule == CombineRule::kLogitMean) {
    MeanOfLogits(rows, weights, vocab_size, out);
  } else if (rule == CombineRule::kLogitMax) {
    MaxOfRows(rows, std::vector<float>(rows.size(), 0.0f), vocab_size, out);
  } else {
    // log softmax(x) = x - logsumexp(x).
    Rows used;
    std::vector<float> shifts;
    for (size_t r = 0; r < rows.size(); ++r) {
      const bool is_weighted = rule == CombineRule::kProbMean && !weights.empty();
      if (is_weighted && weights[r] == 0.0f) continue;
      const double log_weight = is_weighted ? std::log(double{weights[r]}) : 0.0;
      const double log_sum = LogSumExp(rows[r], vocab_size);
      if (!std::isfinite(log_sum)) {
        std::fill_n(out, vocab_size, std::numeric_limits<float>::quiet_NaN());
        return;
      }
      used.push_back(rows[r]);
      shifts.push_back(static_cast<float>(log_weight - log_sum));
    }
    CHECK(!used.empty());
    if (rule == CombineRule::kProbMean) {
      LogSumExpOfRows(used, shifts, vocab_size, out);
    } else {
      MaxOfRows(used, shifts, vocab_size, out);
    }
    SubtractLogSumExp(vocab_size, out);
  }
}

float Disagreement(const Rows& rows, int32_t vocab_size) {
  CHECK(!rows.empty());
  std::vector<float> log_sums;
  for (const float* row : rows) {
    log_sums.push_back(static_cast<float>(LogSumExp(row, vocab_size)));
    if (!std::isfinite(log_sums.back())) return std::numeric_limits<float>::quiet_NaN();
  }
  const double num_rows = static_cast<double>(rows.size());
  const double bits = SumOfDivergences(rows, log_sums, vocab_size) / (num_rows * std::log(2.0));
  return static_cast<float>(std::clamp(bits, 0.0, std::log2(num_rows)));
}

}  // namespace chorus
