#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/step_plan.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// One fused sequence of a test: its layout, all tokens (those past layout.length() are generated),
// and a KV slot for each token.
struct TestSequence {
  SegmentLayout layout;
  std::vector<int32_t> token_ids;
  std::vector<int32_t> slots;
};

// A sequence whose prompt is one segment, so that its mask is plainly causal. Slots run up from
// `first_slot`.
TestSequence CausalSequence(std::vector<int32_t> token_ids, int32_t first_slot);

// Appends tokens [begin, end) of `sequence` to a step, in one attention run per run of equal
// intervals, with those for layers with a window; returns the row of token `begin`. Tokens before
// `begin` must be in their slots already.
int32_t AppendRows(const TestSequence& sequence, int32_t begin, int32_t end, StepPlan& plan);

// A greedy choice from one row. `sampling` must outlive the plan.
TokenChoice GreedyChoice(int32_t row, const SamplingParams& sampling, bool want_logits);

}  // namespace chorus
