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

void Append(std::span<const float> values, std::vector<float>& out) {
  out.insert(out.end(), values.begin(), values.end());
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

void AttentionProbes::EndLayer() {
  for (size_t i = 0; i < order_.size(); ++i) {
    if (!statistics_[i].wants_logits()) continue;
    AttentionProbeResult& result = results_[order_[i]];
    for (const int32_t head : probes_[order_[i]].heads) {
      Append(statistics_[i].mass(head), result.mass);
      Append(statistics_[i].mean_logits(head), result.logits);
    }
  }
}

std::vector<AttentionProbeResult> AttentionProbes::TakeResults() {
  const double num_terms = double{1.0} * num_layers_ * num_heads_;
  for (size_t i = 0; i < order_.size(); ++i) {
    // Layer by layer within a head, then head by head: one order for every batch.
    std::vector<double> sums(statistics_[i].num_units(), 0.0);
    for (int32_t head = 0; head < num_heads_; ++head) {
      const std::span<const double> of_head = statistics_[i].mass_sum(head);
      for (size_t unit = 0; unit < sums.size(); ++unit) sums[unit] += of_head[unit];
    }
    for (const double sum : sums) {
      results_[order_[i]].mean_mass.push_back(static_cast<float>(sum / num_terms));
    }
  }
  return std::move(results_);
}

}  // namespace chorus
