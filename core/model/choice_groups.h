#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/engine/step_plan.h"

namespace chorus {

// Logits of at most this many rows stand side by side (more only for one choice that needs more):
// enough for the head's matrix product to be limited by arithmetic, and a bound on memory.
inline constexpr size_t kMaxLogitRows = 64;

// Rows of the plan that the choices [first, end) read, compare or score, ascending, each once.
std::vector<int32_t> RowsOfChoices(const StepPlan& plan, size_t first, size_t end);

// One past the last choice whose logits fit beside those of `first`.
size_t EndOfChoiceGroup(const StepPlan& plan, size_t first);

}  // namespace chorus
