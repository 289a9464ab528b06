#include "tests/support/fake_probes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace chorus::fake_model {
namespace {

absl::Status Broken(const char* what) {
  return absl::InternalError(absl::StrCat("the plan is wrong: ", what));
}

bool AscendsBelow(const std::vector<int32_t>& values, int32_t limit) {
  int32_t next = 0;
  for (int32_t value : values) {
    if (value < next || value >= limit) return false;
    next = value + 1;
  }
  return true;
}

absl::Status CheckProbe(const AttentionProbe& probe, int32_t num_rows) {
  if (probe.row < 0 || probe.row >= num_rows) return Broken("row of a probe");
  if (!AscendsBelow(probe.layers, kNumLayers)) return Broken("layers of a probe");
  if (!AscendsBelow(probe.heads, kNumHeads)) return Broken("heads of a probe");
  if (probe.units == nullptr) return Broken("a probe without units");
  int32_t end = 0;
  for (const KeyUnits::Range& range : probe.units->ranges) {
    if (range.begin < end || range.end <= range.begin) return Broken("ranges of units");
    if (range.unit < 0 || range.unit >= probe.units->num_units) return Broken("unit of a range");
    end = range.end;
  }
  return absl::OkStatus();
}

// Keys that the row sees: in each unit, and in all.
struct KeyCounts {
  std::vector<int64_t> of_unit;
  int64_t total = 0;
};

KeyCounts CountKeys(const StepPlan& plan, const AttentionProbe& probe) {
  KeyCounts counts;
  counts.of_unit.resize(probe.units->num_units);
  const AttentionPlan& attention = plan.attention;
  for (const AttentionRun& run : attention.runs) {
    if (probe.row < run.row_begin || probe.row >= run.row_end) continue;
    const int32_t seen_end = run.query_begin + probe.row - run.row_begin + 1;
    for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
      const int32_t begin = attention.intervals[i].begin;
      const int32_t end = std::min(attention.intervals[i].end, seen_end);
      counts.total += std::max(0, end - begin);
      for (const KeyUnits::Range& range : probe.units->ranges) {
        const int32_t shared = std::min(end, range.end) - std::max(begin, range.begin);
        counts.of_unit[range.unit] += std::max(0, shared);
      }
    }
  }
  return counts;
}

}  // namespace

absl::Status CheckProbes(const StepPlan& plan) {
  for (const TokenChoice& choice : plan.choices) {
    for (int32_t row : choice.compared_rows) {
      if (row < 0 || row >= plan.num_rows()) return Broken("a compared row");
    }
  }
  for (const AttentionProbe& probe : plan.probes) {
    if (absl::Status status = CheckProbe(probe, plan.num_rows()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

float FakeLogit(int32_t layer, int32_t head, int32_t unit) {
  return 10.0f * static_cast<float>(layer) + static_cast<float>(head) +
         0.125f * static_cast<float>(unit);
}

AttentionProbeResult ProbeOf(const StepPlan& plan, const AttentionProbe& probe) {
  const KeyCounts counts = CountKeys(plan, probe);
  AttentionProbeResult result;
  for (int64_t count : counts.of_unit) {
    result.mean_mass.push_back(static_cast<float>(count) /
                               static_cast<float>(std::max<int64_t>(1, counts.total)));
  }
  for (int32_t layer : probe.layers) {
    for (int32_t head : probe.heads) {
      result.mass.insert(result.mass.end(), result.mean_mass.begin(), result.mean_mass.end());
      for (int32_t unit = 0; unit < probe.units->num_units; ++unit) {
        result.logits.push_back(counts.of_unit[unit] > 0 ? FakeLogit(layer, head, unit)
                                                         : std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
  return result;
}

float DisagreementOf(const std::vector<std::vector<float>>& rows) {
  if (rows.empty()) return 0.0f;
  std::vector<double> mean(rows[0].size(), 0.0);
  double mean_entropy = 0.0, entropy = 0.0;
  for (const std::vector<float>& row : rows) {
    double sum = 0.0;
    for (float logit : row) sum += std::exp(double{logit});
    for (size_t i = 0; i < row.size(); ++i) {
      const double p = std::exp(double{row[i]}) / sum;
      mean[i] += p / static_cast<double>(rows.size());
      mean_entropy -= p * std::log2(p) / static_cast<double>(rows.size());
    }
  }
  for (double p : mean) entropy -= p * std::log2(p);
  return static_cast<float>(std::max(0.0, entropy - mean_entropy));
}

}  // namespace chorus::fake_model
