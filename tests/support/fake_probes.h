#pragma once

#include <vector>

#include "absl/status/status.h"

#include "core/engine/step_plan.h"

namespace chorus::fake_model {

// What models without attention answer to probes. Heads and layers of both fakes:
inline constexpr int32_t kNumLayers = 3;
inline constexpr int32_t kNumHeads = 4;

// INTERNAL if the plan's probes or compared rows are not as step_plan.h has them.
absl::Status CheckProbes(const StepPlan& plan);

// Every head of every layer looks at all keys alike: a unit's mass is its share of the keys that
// the row sees, and its mean logit is FakeLogit(layer, head, unit), NaN if it has none of them.
AttentionProbeResult ProbeOf(const StepPlan& plan, const AttentionProbe& probe);
float FakeLogit(int32_t layer, int32_t head, int32_t unit);

// Jensen-Shannon divergence of the rows' softmaxes in bits, as plainly as can be.
float DisagreementOf(const std::vector<std::vector<float>>& rows);

}  // namespace chorus::fake_model
