#include "core/model/attention_probes.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace chorus {
namespace {

const AttentionRun& RunOf(const AttentionPlan& plan, int32_t row) {
  return *std::partition_point(plan.runs.begin(), plan.runs.end(),
                               [row](const AttentionRun& run) { return run.row_end <= row; });
}

// Appends the rows of `heads` of a [num_heads, num_units] matrix.
void AppendHeads(const std::vector<float>& matrix, const std::vector<int32_t>& heads,
                 int32_t num_units, std::vector<float>& out) {
  for (const int32_t head : heads) {
    const auto begin = matrix.begin() + int64_t{head} * num_units;
    out.insert(out.end(), begin, begin + num_units);
  }
}

}  // namespace

AttentionProbes::AttentionProbes(const StepPlan& plan, const ModelConfig& config)
    : probes_(plan.probes),
      num_layers_(config.num_layers),
      num_heads_(config.num_heads),
      order_(plan.probes.size()),
      results_(plan.probes.size()) {
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [this](size_t a, size_t b) { return probes_[a].row < probes_[b].row; });
  statistics_.reserve(order_.size());
  for (const size_t i : order_) {
    const AttentionProbe& probe = probes_[i];
    statistics_.emplace_back(plan.attention, RunOf(plan.attention, probe.row), probe.row,
                             *probe.units, num_heads_);
    mass_sums_.emplace_back(probe.units->num_units, 0.0);
    const size_t size = probe.layers.size() * probe.heads.size() * probe.units->num_units;
    results_[i].mass.reserve(size);
    results_[i].logits.reserve(size);
  }
}

std::span<AttentionStatistics> AttentionProbes::BeginLayer(int32_t layer) {
  for (size_t i = 0; i < order_.size(); ++i) {
    const AttentionProbe& probe = probes_[order_[i]];
    statistics_[i].SetWantsLogits(
        !probe.heads.empty() &&
        std::binary_search(probe.layers.begin(), probe.layers.end(), layer));
  }
  return statistics_;
}

// One order for every batch: heads within a layer, layer by layer.
void AttentionProbes::AddLayer(const AttentionStatistics& statistics,
                               std::vector<double>& sum) const {
  const float* mass = statistics.mass().data();
  for (int32_t head = 0; head < num_heads_; ++head) {
    for (double& unit_sum : sum) unit_sum += *mass++;
  }
}

void AttentionProbes::EndLayer(int32_t layer) {
  for (size_t i = 0; i < order_.size(); ++i) {
    AddLayer(statistics_[i], mass_sums_[i]);
    if (!statistics_[i].wants_logits()) continue;
    const AttentionProbe& probe = probes_[order_[i]];
    AttentionProbeResult& result = results_[order_[i]];
    AppendHeads(statistics_[i].mass(), probe.heads, statistics_[i].num_units(), result.mass);
    AppendHeads(statistics_[i].mean_logits(), probe.heads, statistics_[i].num_units(),
                result.logits);
  }
}

std::vector<AttentionProbeResult> AttentionProbes::TakeResults() {
  const double num_terms = double{1.0} * num_layers_ * num_heads_;
  for (size_t i = 0; i < order_.size(); ++i) {
    for (const double sum : mass_sums_[i]) {
      results_[order_[i]].mean_mass.push_back(static_cast<float>(sum / num_terms));
    }
  }
  return std::move(results_);
}

}  // namespace chorus
