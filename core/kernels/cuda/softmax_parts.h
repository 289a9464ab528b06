#pragma once

#include <cstdint>

#include "core/kernels/cuda/device.h"
#include "core/segment/attention_plan.h"

// A row's softmax in two parts: segment columns under a SegmentScaling, and the others.
namespace chorus::device {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

// The columns of one part, their logits z in units of log 2 (those of segments over T already):
// the largest, and the sum of 2^(z - max). No column: minus infinity and 0.
struct SoftmaxPart {
  float max;
  float sum;
};

// A column's weight in the whole is 2^(z - max) * factor of its part.
struct PartFactors {
  float others;
  float segments;
  float log_sum;  // of the whole, in units of log 2
};

// scalings[scaling] is read if there is a segment column. An empty part has no weight, whatever it
// says.
CHORUS_DEVICE PartFactors MergeParts(const SoftmaxPart& others, const SoftmaxPart& segments,
                                     const SegmentScaling* scalings, int scaling) {
  float of_others = MinusInfinity(), of_segments = MinusInfinity();
  if (others.sum > 0.0f) of_others = others.max + Log2(others.sum);
  if (segments.sum > 0.0f) {
    const SegmentScaling by = LoadGlobal(scalings + scaling);
    of_segments = by.scale * (segments.max + Log2(segments.sum)) + by.log_bias * kLog2E;
  }
  const float max = Max(of_others, of_segments);
  PartFactors factors{0.0f, 0.0f, MinusInfinity()};
  if (max == MinusInfinity()) return factors;
  factors.log_sum = max + Log2(Exp2(of_others - max) + Exp2(of_segments - max));
  if (others.sum > 0.0f) factors.others = Exp2(of_others - factors.log_sum) / others.sum;
  if (segments.sum > 0.0f) factors.segments = Exp2(of_segments - factors.log_sum) / segments.sum;
  return factors;
}

}  // namespace chorus::device
