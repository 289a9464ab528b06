#pragma once

#include <cstdint>

#include "absl/types/span.h"

#include "core/engine/step_plan.h"
#include "core/engine/token_sink.h"
#include "core/segment/key_units.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// The units that the keys of a fused sequence are counted by, whether there are such keys or not:
//
//   0 prefix | 1 + i: prompt i, caller's order | isolated separators | suffix | generated tokens
//
// An attached separator counts to its segment.
struct UnitNumbers {
  explicit UnitNumbers(int32_t num_prompts) : num_prompts(num_prompts) {}

  int32_t num_prompts;
  int32_t prefix() const { return 0; }
  int32_t prompt(int32_t prompt_index) const { return 1 + prompt_index; }
  int32_t separators() const { return num_prompts + 1; }
  int32_t suffix() const { return num_prompts + 2; }
  int32_t generated() const { return num_prompts + 3; }
  int32_t count() const { return num_prompts + 4; }
};

// The units of a sequence of `layout` that may grow to `max_length` tokens. `prompt_indexes`: of
// each of the layout's segments, in the caller's order.
KeyUnits KeyUnitsOf(const SegmentLayout& layout, absl::Span<const int32_t> prompt_indexes,
                    int32_t max_length);

// The mean over `rows`, which are not empty and have the units of UnitNumbers.
Attribution MeanAttribution(absl::Span<const AttentionProbeResult> rows);

// The mean over `rows`, of logits over those that are not NaN.
AttentionStep MeanStep(int32_t step, absl::Span<const AttentionProbeResult> rows);

}  // namespace chorus
