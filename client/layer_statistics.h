#pragma once

#include <vector>

#include "absl/types/span.h"
#include "chorus/v1/inference.pb.h"

namespace chorus {

// A head whose sink score on the logits is above this is a sink head; a layer has a sink where the
// first unit's logits are above this many times the middle's.
inline constexpr double kSinkHeadScore = 2.0;
inline constexpr double kSinkLayerRatio = 1.2;

// One quantity (logits or mass) of one layer over the units of an ExplainResponse, mean over steps;
// a step that sees no key of a unit (NaN) does not count there. First, middle and last are of the
// units that are seen, in their order; middle is the mean of what stands between, or of all if
// nothing does.
struct LayerStatistics {
  // By head.
  std::vector<double> sink_scores;  // first - middle
  std::vector<double> spreads;      // (largest - smallest) / |mean| * 100, percent
  // By seen unit, over heads; the deviation has N in the denominator.
  std::vector<double> mean;
  std::vector<double> deviation;
  // Of `mean`, and how far the heads are apart in it.
  struct Part {
    double value = 0.0;
    double deviation = 0.0;
  };
  Part first, middle, last;

  double ratio() const { return first.value / middle.value; }
  double difference() const { return first.value - last.value; }
  bool has_sink() const { return ratio() > kSinkLayerRatio; }
  // Places in the response's heads.
  std::vector<int> sink_heads() const;
};

// Places of the units that some row of every layer and head sees.
std::vector<int> SeenUnits(const v1::ExplainResponse& response);

// `values`: LayerAttention::logits or mass of the response.
LayerStatistics StatisticsOf(const v1::ExplainResponse& response, absl::Span<const float> values,
                             absl::Span<const int> seen_units);

// By unit: the mass that it gets, mean over layers, steps and heads.
std::vector<double> MeanMass(const v1::ExplainResponse& response);

// Whether LayerAttention's lists have the sizes that steps, heads and units say.
bool IsWellFormed(const v1::ExplainResponse& response);

}  // namespace chorus
