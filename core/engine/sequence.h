#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/fusion_strategy.h"
#include "core/segment/row_intervals.h"

namespace chorus {

// One token list of a running request: its prompt, the tokens generated after it, and the KV slots
// of both. Owned by its RunningRequest; worker thread only.
class Sequence {
 public:
  // `plan` and `generated` (shared by all sequences of a generation) must outlive the sequence.
  // `slots`: one a token that the sequence can ever hold, prompt and generated.
  Sequence(const SequencePlan* plan, const std::vector<int32_t>* generated,
           std::vector<int32_t> slots, bool split_segment_columns);

  // Prompt and generated tokens so far.
  int32_t num_tokens() const;
  int32_t prompt_length() const { return plan_.layout.length(); }

  // Of token `index`, 0 <= index < num_tokens().
  int32_t TokenAt(int32_t index) const;
  int32_t PositionAt(int32_t index) const { return plan_.layout.PositionOf(index); }
  int32_t SlotAt(int32_t index) const { return slots_[index]; }

  const std::vector<int32_t>& slots() const { return slots_; }
  const SequencePlan& plan() const { return plan_; }
  // Of every row that the sequence can ever hold.
  const RowIntervals& row_intervals() const { return row_intervals_; }

  // Gives its slots away, for good: the sequence runs no more rows.
  std::vector<int32_t> ReleaseSlots();

 private:
  const SequencePlan& plan_;
  const std::vector<int32_t>& generated_;
  std::vector<int32_t> slots_;
  RowIntervals row_intervals_;
};

}  // namespace chorus
