#pragma once

#include <cstdint>
#include <vector>

namespace chorus {

// Keys [begin, end) of one sequence, by logical index; a row q sees those with k <= q.
// `is_segment` marks columns owned by segments, which APE's temperature, scale and bias touch.
struct KeyInterval {
  int32_t begin = 0;
  int32_t end = 0;
  bool is_segment = false;
  // Only for layers with an AttentionWindow: the RoPE position of key k is k + position_shift.
  int32_t position_shift = 0;
  friend bool operator==(const KeyInterval&, const KeyInterval&) = default;
};

// Adaptive Parallel Encoding (Yang et al., 2025) over the segment columns of fused rows (those at
// or after original_length): logits z/T, merged log-sum-exp times S, plus log_bias.
struct SegmentScaling {
  float temperature = 1.0f;
  float scale = 1.0f;
  float log_bias = 0.0f;
  friend bool operator==(const SegmentScaling&, const SegmentScaling&) = default;
};

// Consecutive rows of a step that are consecutive tokens of one sequence, at consecutive positions,
// and share their key intervals (but for the causal clip, and a layer's window).
//
// A layer with an AttentionWindow reads windowed intervals: the same keys, cut where their
// positions jump, so that each row's window is one more clip of an interval, by its position. Both
// lists are O(segments) a run, however long its rows and keys: no row has a list of its own.
struct AttentionRun {
  int32_t row_begin = 0;  // rows [row_begin, row_end) of the step
  int32_t row_end = 0;
  int32_t query_begin = 0;     // logical index of row_begin's token in its sequence
  int32_t table_begin = 0;     // key k of the sequence lies in slot slot_table[table_begin + k]
  int32_t interval_begin = 0;  // its intervals: [interval_begin, interval_end) of `intervals`,
  int32_t interval_end = 0;    // ascending, disjoint; none: the rows attend to nothing
  int32_t scaling = -1;        // index into `scalings`, or -1: plain softmax over all intervals
  // The same for layers with a window: [windowed_begin, windowed_end) of `intervals`, often the
  // very same range. Not set where the model has no such layer.
  int32_t windowed_begin = 0;
  int32_t windowed_end = 0;
  int32_t position_begin = 0;  // RoPE position of row_begin's token
  // Rows at or after original_length: they see everything. A device computes them by kernels of
  // their own, so that a row's bits never depend on its batch.
  bool is_fused = false;
};

// Keys and values of one token that also have to stand elsewhere: in every layer, after the step's
// rows have written theirs and before any row attends, `to_slot` gets the values of `from_slot` and
// its keys turned by `distance` positions, k(p + d) = R(d) k(p), in float32.
struct KvMove {
  int32_t from_slot = 0;
  int32_t to_slot = 0;
  int32_t distance = 0;  // >= 0
};

// The attention work of one step over a ragged batch; made once a step, used by every layer.
// Every row of the step is in exactly one run.
struct AttentionPlan {
  std::vector<AttentionRun> runs;
  std::vector<KeyInterval> intervals;
  std::vector<int32_t> slot_table;
  std::vector<SegmentScaling> scalings;
  std::vector<KvMove> moves;  // no slot is moved to twice, or both moved to and from
};

}  // namespace chorus
