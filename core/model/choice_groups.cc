#include "core/model/choice_groups.h"

#include <algorithm>

namespace chorus {

std::vector<int32_t> RowsOfChoices(const StepPlan& plan, size_t first, size_t end) {
  std::vector<int32_t> rows;
  for (size_t i = first; i < end; ++i) {
    const TokenChoice& choice = plan.choices[i];
    rows.insert(rows.end(), choice.rows.begin(), choice.rows.end());
    rows.insert(rows.end(), choice.compared_rows.begin(), choice.compared_rows.end());
    rows.insert(rows.end(), choice.target_rows.begin(), choice.target_rows.end());
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

size_t EndOfChoiceGroup(const StepPlan& plan, size_t first, size_t max_rows) {
  size_t num_rows = RowsOfChoices(plan, first, first + 1).size();
  size_t end = first + 1;
  for (; end < plan.choices.size(); ++end) {
    num_rows += RowsOfChoices(plan, end, end + 1).size();
    if (num_rows > max_rows) break;
  }
  return end;
}

}  // namespace chorus
