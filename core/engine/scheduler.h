#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/running_request.h"

namespace chorus {

// A generation's part in one step: either its last token's row in each of its sequences (decode),
// or its next prompt rows.
struct StepWork {
  RunningRequest* request = nullptr;
  int32_t generation_index = 0;
  bool decode = false;
  int64_t num_early_rows = 0;  // of the generation's early rows, from where it stands
  bool final_rows = false;     // and its final rows after them

  // True if a token comes of it.
  bool chooses() const { return decode || final_rows; }
};

// Decides which rows run next. A pure function of the requests it is shown. Owned by a worker.
//
// Every decode row runs in every step. Prompt rows fill what is left of max_step_rows, at least an
// eighth of it so that decoding never stops reading, in the order of the requests; nothing
// overtakes a prompt that waits. A generation's final rows run together: they may exceed the
// budget, alone.
class Scheduler {
 public:
  // max_step_rows >= 1.
  explicit Scheduler(int32_t max_step_rows) : max_step_rows_(max_step_rows) {}

  // `requests` in order of admission, without paused ones. Empty only if `requests` is.
  std::vector<StepWork> PlanStep(absl::Span<RunningRequest* const> requests) const;

 private:
  const int32_t max_step_rows_;
};

}  // namespace chorus
