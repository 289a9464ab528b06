#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/engine/step_plan.h"

namespace chorus {

// Rows of the plan that the choices [first, end) read, compare or score, ascending, each once.
std::vector<int32_t> RowsOfChoices(const StepPlan& plan, size_t first, size_t end);

// One past the last choice whose logits stand beside those of `first`: of at most `max_rows` rows,
// more only for one choice that needs more.
size_t EndOfChoiceGroup(const StepPlan& plan, size_t first, size_t max_rows);

}  // namespace chorus
