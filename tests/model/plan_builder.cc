#include "tests/model/plan_builder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/segment/row_intervals.h"

namespace chorus {

TestSequence CausalSequence(std::vector<int32_t> token_ids, int32_t first_slot) {
  const int32_t length = static_cast<int32_t>(token_ids.size());
  TestSequence sequence{*SegmentLayout::FromPieces({.segment_lengths = {length}}),
                        std::move(token_ids), std::vector<int32_t>(length)};
  std::iota(sequence.slots.begin(), sequence.slots.end(), first_slot);
  return sequence;
}

int32_t AppendRows(const TestSequence& sequence, int32_t begin, int32_t end, StepPlan& plan) {
  const int32_t first_row = plan.num_rows();
  const int32_t table_begin = static_cast<int32_t>(plan.attention.slot_table.size());
  for (int32_t index = begin; index < end; ++index) {
    plan.token_ids.push_back(sequence.token_ids[index]);
    plan.positions.push_back(sequence.layout.PositionOf(index));
    plan.slots.push_back(sequence.slots[index]);
  }
  plan.attention.slot_table.insert(plan.attention.slot_table.end(), sequence.slots.begin(),
                                   sequence.slots.begin() + end);
  const RowIntervals intervals = RowIntervals::FromLayout(
      sequence.layout, std::max(end, sequence.layout.length()), /*split_segment_columns=*/false);
  const RowIntervals windowed = intervals.CutAtPositions(sequence.layout);
  for (const RowIntervals::Run& run : intervals.runs()) {
    const int32_t run_begin = std::max(run.rows.begin, begin);
    const int32_t run_end = std::min(run.rows.end, end);
    if (run_begin >= run_end) continue;
    const int32_t interval_begin = static_cast<int32_t>(plan.attention.intervals.size());
    const std::vector<KeyInterval>& windowed_keys = windowed.RunOf(run_begin).keys;
    std::vector<KeyInterval>& all = plan.attention.intervals;
    all.insert(all.end(), run.keys.begin(), run.keys.end());
    const int32_t interval_end = static_cast<int32_t>(all.size());
    all.insert(all.end(), windowed_keys.begin(), windowed_keys.end());
    plan.attention.runs.push_back({.row_begin = first_row + run_begin - begin,
                                   .row_end = first_row + run_end - begin,
                                   .query_begin = run_begin,
                                   .table_begin = table_begin,
                                   .interval_begin = interval_begin,
                                   .interval_end = interval_end,
                                   .windowed_begin = interval_end,
                                   .windowed_end = static_cast<int32_t>(all.size()),
                                   .position_begin = sequence.layout.PositionOf(run_begin),
                                   .is_fused = run_begin >= sequence.layout.original_length()});
  }
  return first_row;
}

TokenChoice GreedyChoice(int32_t row, const SamplingParams& sampling, bool want_logits) {
  TokenChoice choice;
  choice.rows = {row};
  choice.sampling = &sampling;
  choice.want_logits = want_logits;
  return choice;
}

}  // namespace chorus
