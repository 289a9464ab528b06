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
    : plan_(plan),
      probes_(plan.probes),
      config_(config),
      order_(plan.probes.size()),
      results_(plan.probes.size()) {
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [this](size_t a, size_t b) { return probes_[a].row < probes_[b].row; });
  for (const size_t i : order_) {
    const AttentionProbe& probe = probes_[i];
    const size_t size = probe.layers.size() * probe.heads.size() * probe.units->num_units;
    results_[i].mass.reserve(size);
    results_[i].logits.reserve(size);
  }
}

std::vector<AttentionStatistics>& AttentionProbes::StatisticsOf(int32_t layer) {
  const AttentionWindow window = config_.WindowOf(layer);
  for (WindowStatistics& of : windows_) {
    if (of.window == window) return of.statistics;
  }
  std::vector<AttentionStatistics>& made =
      windows_.emplace_back(WindowStatistics{window, {}}).statistics;
  made.reserve(order_.size());
  for (const size_t i : order_) {
    made.emplace_back(plan_.attention, RunOf(plan_.attention, probes_[i].row), probes_[i].row,
                      *probes_[i].units, config_.num_heads, window);
  }
  return made;
}

std::span<AttentionStatistics> AttentionProbes::BeginLayer(int32_t layer) {
  if (probes_.empty()) return {};
  std::vector<AttentionStatistics>& statistics = StatisticsOf(layer);
  for (size_t i = 0; i < order_.size(); ++i) {
    const AttentionProbe& probe = probes_[order_[i]];
    statistics[i].SetWantsLogits(
        !probe.heads.empty() &&
        std::binary_search(probe.layers.begin(), probe.layers.end(), layer));
  }
  return statistics;
}

void AttentionProbes::EndLayer(int32_t layer) {
  if (probes_.empty()) return;
  const std::vector<AttentionStatistics>& statistics = StatisticsOf(layer);
  for (size_t i = 0; i < order_.size(); ++i) {
    if (!statistics[i].wants_logits()) continue;
    AttentionProbeResult& result = results_[order_[i]];
    for (const int32_t head : probes_[order_[i]].heads) {
      Append(statistics[i].mass(head), result.mass);
      Append(statistics[i].mean_logits(head), result.logits);
    }
  }
}

std::vector<AttentionProbeResult> AttentionProbes::TakeResults() {
  const double num_terms = double{1.0} * config_.num_layers * config_.num_heads;
  for (size_t i = 0; i < order_.size(); ++i) {
    // Layer by layer within a head, head by head, window by window: one order for every batch.
    std::vector<double> sums(probes_[order_[i]].units->num_units, 0.0);
    for (const WindowStatistics& of : windows_) {
      for (int32_t head = 0; head < config_.num_heads; ++head) {
        const std::span<const double> of_head = of.statistics[i].mass_sum(head);
        for (size_t unit = 0; unit < sums.size(); ++unit) sums[unit] += of_head[unit];
      }
    }
    for (const double sum : sums) {
      results_[order_[i]].mean_mass.push_back(static_cast<float>(sum / num_terms));
    }
  }
  return std::move(results_);
}

}  // namespace chorus
