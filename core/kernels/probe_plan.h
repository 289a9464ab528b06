#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/kernels/tile_plan.h"
#include "core/segment/attention_plan.h"
#include "core/segment/attention_window.h"
#include "core/segment/key_units.h"

namespace chorus {

// A row of a step whose attention a device is to look at, as AttentionProbe.
struct RowProbe {
  int32_t row = 0;
  const KeyUnits* units = nullptr;
  std::span<const int32_t> layers;  // of which mass and mean logits are wanted one by one, too;
  std::span<const int32_t> heads;   // ascending
};

// Keys [begin, end) that a probe's row sees.
struct ProbePiece {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t is_scaled = 0;  // 1: segment columns under a SegmentScaling, a softmax of their own
};

// One probe as a device reads it. Its keys stand in num_units + 1 groups: first those in no unit,
// then those of each unit. The pieces of group g are [piece_begins[group_begin + g],
// piece_begins[group_begin + g + 1]).
struct ProbeTask {
  int64_t logits_begin = 0;  // its row's logits by key: [num_heads, num_keys]
  int64_t chosen_begin = 0;  // what was asked for one by one: [layers, heads, num_units]
  int32_t num_keys = 0;      // the index of the row's token, plus 1
  int32_t scaling = -1;      // as AttentionRun's
  int32_t group_begin = 0;
  int32_t unit_begin = 0;  // its units among those of all probes
  int32_t num_units = 0;
  int32_t num_chosen_heads = 0;
};

// The probes of one step for the layers of one window: flat arrays, for a device.
struct ProbePlan {
  std::vector<ProbeTask> tasks;  // one a probe, in order
  std::vector<ProbePiece> pieces;
  std::vector<int32_t> piece_begins;
  std::vector<int64_t> logit_offsets;  // [num_rows] where a row's logits begin; -1: not looked at
  // Index of a layer or head among those that a probe asks for, or -1.
  std::vector<int32_t> layer_order;  // [num_layers, num_probes]
  std::vector<int32_t> head_order;   // [num_probes, num_heads]
  int64_t num_logits = 0;            // numbers in the buffer of all rows' logits; reused by layers
  int32_t num_units = 0;             // of all probes
  int64_t num_chosen = 0;            // numbers asked for one by one, of all probes
};

struct ProbedModel {
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_rows = 0;  // of the step
};

// But for pieces and piece_begins it is the same for every window. What a task's pieces are, and in
// which order, depends on the row's own intervals, units and window only.
// REQUIRES: each probe's row is in a run, its units are in order.
ProbePlan PlanProbes(const AttentionPlan& plan, std::span<const RowProbe> probes,
                     const AttentionWindow& window, const ProbedModel& model);

// One tile for each probed row that is not fused: to find logits by a pass of their own, where the
// kernel that computes those rows does not give them.
TilePlan PlanProbedOwnRows(const AttentionPlan& plan, std::span<const RowProbe> probes,
                           const AttentionWindow& window, const TileShape& shape);

}  // namespace chorus
