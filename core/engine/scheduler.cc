#include "core/engine/scheduler.h"

#include <algorithm>

namespace chorus {
namespace {

int64_t AddDecodeWork(absl::Span<RunningRequest* const> requests, std::vector<StepWork>* works) {
  int64_t num_rows = 0;
  for (RunningRequest* request : requests) {
    for (int32_t i = 0; i < request->num_generations(); ++i) {
      const Generation& generation = request->generation(i);
      if (generation.finished() || !generation.prompt_done()) continue;
      works->push_back({.request = request, .generation_index = i, .decode = true});
      num_rows += static_cast<int64_t>(generation.plan().sequence_indexes.size());
    }
  }
  return num_rows;
}

void AddPromptWork(absl::Span<RunningRequest* const> requests, int64_t budget,
                   std::vector<StepWork>* works) {
  bool any = false;
  for (RunningRequest* request : requests) {
    for (int32_t i = 0; i < request->num_generations(); ++i) {
      const Generation& generation = request->generation(i);
      if (generation.prompt_done()) continue;
      StepWork work = {.request = request, .generation_index = i};
      const int64_t num_left = generation.num_early_rows_left();
      work.num_early_rows = std::min(num_left, budget);
      budget -= work.num_early_rows;
      any = any || work.num_early_rows > 0;
      work.final_rows =
          work.num_early_rows == num_left && (!any || generation.num_final_rows() <= budget);
      if (work.final_rows) budget -= generation.num_final_rows();
      any = any || work.final_rows;
      if (work.num_early_rows > 0 || work.final_rows) works->push_back(work);
      if (!work.final_rows) return;
    }
  }
}

}  // namespace

std::vector<StepWork> Scheduler::PlanStep(absl::Span<RunningRequest* const> requests) const {
  std::vector<StepWork> works;
  const int64_t num_decode_rows = AddDecodeWork(requests, &works);
  const int64_t least = std::max(max_step_rows_ / 8, 1);
  AddPromptWork(requests, std::max(max_step_rows_ - num_decode_rows, least), &works);
  return works;
}

}  // namespace chorus
