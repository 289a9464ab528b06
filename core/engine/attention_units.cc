#include "core/engine/attention_units.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/check.h"

namespace chorus {
namespace {

// Elementwise mean of `values(row)`, each of one size, over the rows where it is not NaN; NaN where
// it is so in all. In float64, in the order of the rows.
template <typename Values>
std::vector<float> MeanOf(absl::Span<const AttentionProbeResult> rows, const Values& values) {
  std::vector<float> mean(values(rows.front()).size());
  for (size_t i = 0; i < mean.size(); ++i) {
    double sum = 0.0;
    int32_t count = 0;
    for (const AttentionProbeResult& row : rows) {
      if (std::isnan(values(row)[i])) continue;
      sum += values(row)[i];
      ++count;
    }
    mean[i] = count > 0 ? static_cast<float>(sum / count) : std::numeric_limits<float>::quiet_NaN();
  }
  return mean;
}

}  // namespace

KeyUnits KeyUnitsOf(const SegmentLayout& layout, absl::Span<const int32_t> prompt_indexes,
                    int32_t max_length) {
  const std::vector<TokenRange>& segments = layout.segments();
  CHECK(prompt_indexes.size() == segments.size());
  const UnitNumbers units(static_cast<int32_t>(segments.size()));
  KeyUnits result = {.num_units = units.count()};
  int32_t begin = 0;
  // The keys from where the last range ended.
  const auto add = [&](int32_t end, int32_t unit) {
    if (end > begin) result.ranges.push_back({begin, end, unit});
    begin = end;
  };
  add(layout.prefix_length(), units.prefix());
  for (size_t i = 0; i < segments.size(); ++i) {
    add(segments[i].begin, units.separators());
    add(segments[i].end, units.prompt(prompt_indexes[i]));
  }
  add(layout.original_length(), units.separators());
  add(layout.length(), units.suffix());
  add(max_length, units.generated());
  return result;
}

Attribution MeanAttribution(absl::Span<const AttentionProbeResult> rows) {
  const std::vector<float> mass =
      MeanOf(rows, [](const AttentionProbeResult& row) -> const auto& { return row.mean_mass; });
  const UnitNumbers units(static_cast<int32_t>(mass.size()) - UnitNumbers(0).count());
  Attribution attribution;
  attribution.prefix = mass[units.prefix()];
  attribution.segments.assign(mass.begin() + units.prompt(0), mass.begin() + units.separators());
  attribution.separators = mass[units.separators()];
  attribution.suffix = mass[units.suffix()];
  attribution.generated = mass[units.generated()];
  return attribution;
}

AttentionStep MeanStep(int32_t step, absl::Span<const AttentionProbeResult> rows) {
  return {.step = step,
          .mass = MeanOf(rows, [](const auto& row) -> const auto& { return row.mass; }),
          .logits = MeanOf(rows, [](const auto& row) -> const auto& { return row.logits; })};
}

}  // namespace chorus
