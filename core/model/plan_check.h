#pragma once

#include "absl/status/status.h"

#include "core/engine/model_runner.h"
#include "core/engine/step_plan.h"

namespace chorus {

// INTERNAL if an index in the plan points outside the model, the KV storage or the plan itself, or
// the moves get in each other's way: the kernels take raw pointers and check nothing.
absl::Status CheckStepPlan(const StepPlan& plan, const ModelInfo& info);

}  // namespace chorus
