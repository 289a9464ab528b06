#include "client/layer_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace chorus {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double MeanOf(absl::Span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double DeviationOf(absl::Span<const double> values) {
  const double mean = MeanOf(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double MiddleOf(absl::Span<const double> values) {
  return MeanOf(values.size() > 2 ? values.subspan(1, values.size() - 2) : values);
}

// [heads][seen units], mean over the steps that see the unit.
std::vector<std::vector<double>> MeansOverSteps(const v1::ExplainResponse& response,
                                                absl::Span<const float> values,
                                                absl::Span<const int> seen_units) {
  const int num_heads = response.heads_size();
  const int num_units = response.units_size();
  std::vector<std::vector<double>> means(num_heads);
  for (int head = 0; head < num_heads; ++head) {
    for (const int unit : seen_units) {
      double sum = 0.0;
      int count = 0;
      for (int step = 0; step < response.steps_size(); ++step) {
        const float value = values[(step * num_heads + head) * num_units + unit];
        if (std::isnan(value)) continue;
        sum += value;
        ++count;
      }
      means[head].push_back(count > 0 ? sum / count : kNaN);
    }
  }
  return means;
}

}  // namespace

std::vector<int> LayerStatistics::sink_heads() const {
  std::vector<int> heads;
  for (size_t i = 0; i < sink_scores.size(); ++i) {
    if (sink_scores[i] > kSinkHeadScore) heads.push_back(static_cast<int>(i));
  }
  return heads;
}

std::vector<int> SeenUnits(const v1::ExplainResponse& response) {
  const int num_units = response.units_size();
  std::vector<int> all(num_units);
  std::iota(all.begin(), all.end(), 0);
  std::vector<bool> is_seen(num_units, response.layers_size() > 0);
  for (const v1::LayerAttention& layer : response.layers()) {
    for (const std::vector<double>& means : MeansOverSteps(response, layer.logits(), all)) {
      for (int unit = 0; unit < num_units; ++unit) {
        if (std::isnan(means[unit])) is_seen[unit] = false;
      }
    }
  }
  std::erase_if(all, [&](int unit) { return !is_seen[unit]; });
  return all;
}

LayerStatistics StatisticsOf(const v1::ExplainResponse& response, absl::Span<const float> values,
                             absl::Span<const int> seen_units) {
  const auto by_head = MeansOverSteps(response, values, seen_units);
  LayerStatistics statistics;
  if (by_head.empty() || seen_units.empty()) return statistics;
  std::vector<double> middles;
  for (const std::vector<double>& head : by_head) {
    middles.push_back(MiddleOf(head));
    statistics.sink_scores.push_back(head.front() - middles.back());
    const auto [smallest, largest] = std::minmax_element(head.begin(), head.end());
    statistics.spreads.push_back((*largest - *smallest) / std::abs(MeanOf(head)) * 100);
  }
  for (size_t unit = 0; unit < seen_units.size(); ++unit) {
    std::vector<double> heads;
    for (const std::vector<double>& head : by_head) heads.push_back(head[unit]);
    statistics.mean.push_back(MeanOf(heads));
    statistics.deviation.push_back(DeviationOf(heads));
  }
  statistics.first = {statistics.mean.front(), statistics.deviation.front()};
  statistics.middle = {MiddleOf(statistics.mean), DeviationOf(middles)};
  statistics.last = {statistics.mean.back(), statistics.deviation.back()};
  return statistics;
}

std::vector<double> MeanMass(const v1::ExplainResponse& response) {
  const int num_units = response.units_size();
  std::vector<double> mass(num_units, 0.0);
  double num_rows = 0.0;
  for (const v1::LayerAttention& layer : response.layers()) {
    for (int i = 0; i < layer.mass_size(); ++i) mass[i % num_units] += layer.mass(i);
    num_rows += static_cast<double>(layer.mass_size()) / num_units;
  }
  for (double& value : mass) value /= std::max(num_rows, 1.0);
  return mass;
}

bool IsWellFormed(const v1::ExplainResponse& response) {
  const int64_t size =
      int64_t{response.steps_size()} * response.heads_size() * response.units_size();
  return std::all_of(response.layers().begin(), response.layers().end(),
                     [&](const v1::LayerAttention& layer) {
                       return layer.logits_size() == size && layer.mass_size() == size;
                     });
}

}  // namespace chorus
