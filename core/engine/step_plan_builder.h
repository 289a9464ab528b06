#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/scheduler.h"
#include "core/engine/step_plan.h"

namespace chorus {

// The step that does all of `works`, in their order: rows, attention, and the choices of each work,
// in order, and the probes of the choices' rows, likewise. Pointers in it are borrowed
// from the requests.
StepPlan BuildStepPlan(absl::Span<const StepWork> works);

}  // namespace chorus
