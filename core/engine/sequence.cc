#include "core/engine/sequence.h"

#include <utility>

#include "core/base/check.h"

namespace chorus {

Sequence::Sequence(const SequencePlan* plan, const std::vector<int32_t>* generated,
                   std::vector<int32_t> slots, bool split_segment_columns)
    : plan_(*plan),
      generated_(*generated),
      slots_(std::move(slots)),
      row_intervals_(RowIntervals::FromLayout(plan_.layout, static_cast<int32_t>(slots_.size()),
                                              split_segment_columns)) {}

int32_t Sequence::num_tokens() const {
  return prompt_length() + static_cast<int32_t>(generated_.size());
}

int32_t Sequence::TokenAt(int32_t index) const {
  CHECK(index >= 0 && index < num_tokens());
  return index < prompt_length() ? plan_.token_ids[index] : generated_[index - prompt_length()];
}

std::vector<int32_t> Sequence::ReleaseSlots() { return std::exchange(slots_, {}); }

}  // namespace chorus
