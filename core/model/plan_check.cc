#include "core/model/plan_check.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status PlanError(const std::string& what) {
  return absl::InternalError(absl::StrCat("step plan: ", what));
}

bool AllBelow(const std::vector<int32_t>& values, int64_t limit) {
  return std::all_of(values.begin(), values.end(),
                     [limit](int32_t value) { return value >= 0 && value < limit; });
}

bool IsRange(int64_t begin, int64_t end, size_t size) {
  return begin >= 0 && begin <= end && end <= static_cast<int64_t>(size);
}

// Intervals [begin, end) of a plan, for a run of so many rows.
absl::Status CheckIntervals(const AttentionPlan& plan, const AttentionRun& run, int32_t begin,
                            int32_t end) {
  if (!IsRange(begin, end, plan.intervals.size())) {
    return PlanError("a run's intervals are out of range");
  }
  const int64_t num_queries = int64_t{run.query_begin} + run.row_end - run.row_begin;
  int32_t last_end = 0;
  for (int32_t i = begin; i < end; ++i) {
    const KeyInterval& interval = plan.intervals[i];
    if (interval.begin < last_end || interval.end < interval.begin) {
      return PlanError("a run's intervals are not ascending");
    }
    last_end = interval.end;
  }
  const int64_t num_keys = std::min<int64_t>(last_end, num_queries);  // of those k <= q
  if (begin < end &&
      !IsRange(run.table_begin, run.table_begin + num_keys, plan.slot_table.size())) {
    return PlanError("a run's slots are out of range");
  }
  return absl::OkStatus();
}

// What layers with a window read of a run. A shift larger than any position would overflow in sums
// with one.
absl::Status CheckWindowed(const StepPlan& plan, const AttentionRun& run, const ModelInfo& info) {
  const AttentionPlan& attention = plan.attention;
  CHORUS_RETURN_IF_ERROR(CheckIntervals(attention, run, run.windowed_begin, run.windowed_end));
  for (int32_t row = run.row_begin; row < run.row_end; ++row) {
    if (plan.positions[row] != run.position_begin + (row - run.row_begin)) {
      return PlanError("a run's positions are not those of its rows");
    }
  }
  for (int32_t i = run.windowed_begin; i < run.windowed_end; ++i) {
    const KeyInterval& interval = attention.intervals[i];
    const int64_t first = int64_t{interval.begin} + interval.position_shift;
    if (first < 0 || first >= info.max_positions) {
      return PlanError("a windowed interval's positions are out of range");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRun(const StepPlan& step, const AttentionRun& run, int32_t next_row,
                      const ModelInfo& info) {
  const AttentionPlan& plan = step.attention;
  if (run.row_begin != next_row || run.row_end <= run.row_begin || run.row_end > step.num_rows() ||
      run.query_begin < 0) {
    return PlanError("runs do not cover the rows in order");
  }
  if (run.scaling < -1 || run.scaling >= static_cast<int32_t>(plan.scalings.size())) {
    return PlanError("a run's scaling is out of range");
  }
  CHORUS_RETURN_IF_ERROR(CheckIntervals(plan, run, run.interval_begin, run.interval_end));
  return info.layer_windows.empty() ? absl::OkStatus() : CheckWindowed(step, run, info);
}

absl::Status CheckChoice(const TokenChoice& choice, int32_t num_rows, const ModelInfo& info) {
  const bool is_sized = !choice.rows.empty() &&
                        (choice.rule != CombineRule::kNone || choice.rows.size() == 1) &&
                        (choice.weights.empty() || choice.weights.size() == choice.rows.size());
  const bool is_weighted =
      choice.weights.empty() || std::any_of(choice.weights.begin(), choice.weights.end(),
                                            [](float weight) { return weight > 0.0f; });
  if (choice.sampling == nullptr || !is_sized || !is_weighted || !AllBelow(choice.rows, num_rows) ||
      !AllBelow(choice.compared_rows, num_rows) || !AllBelow(choice.target_rows, num_rows) ||
      !AllBelow(choice.targets, info.vocab_size)) {
    return PlanError("a choice is not well formed");
  }
  return absl::OkStatus();
}

bool IsAscendingBelow(const std::vector<int32_t>& values, int32_t limit) {
  return AllBelow(values, limit) &&
         std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) == values.end();
}

absl::Status CheckProbe(const AttentionProbe& probe, int32_t num_rows, const ModelInfo& info) {
  if (probe.row < 0 || probe.row >= num_rows) return PlanError("a probe's row is out of range");
  if (!IsAscendingBelow(probe.layers, info.num_layers) ||
      !IsAscendingBelow(probe.heads, info.num_heads)) {
    return PlanError("a probe's layers or heads are out of range or order");
  }
  if (probe.units == nullptr || probe.units->num_units < 0) return PlanError("a probe lacks units");
  int32_t last_end = 0;
  for (const KeyUnits::Range& range : probe.units->ranges) {
    if (range.begin < last_end || range.end <= range.begin || range.unit < 0 ||
        range.unit >= probe.units->num_units) {
      return PlanError("a probe's units are out of range or order");
    }
    last_end = range.end;
  }
  return absl::OkStatus();
}

absl::Status CheckMove(const KvMove& move, const ModelInfo& info) {
  const auto is_slot = [&](int32_t slot) { return slot >= 0 && slot < info.num_kv_slots; };
  if (is_slot(move.from_slot) && is_slot(move.to_slot) && move.from_slot != move.to_slot &&
      move.distance >= 0 && move.distance < info.max_positions) {
    return absl::OkStatus();
  }
  return PlanError("a move is out of range");
}

// Moves run in any order, after the rows have written: each slot has one writer, and none is moved
// on.
absl::Status CheckMoves(const StepPlan& plan, const ModelInfo& info) {
  if (plan.attention.moves.empty()) return absl::OkStatus();
  absl::flat_hash_set<int32_t> written(plan.slots.begin(), plan.slots.end());
  absl::flat_hash_set<int32_t> moved_to;
  for (const KvMove& move : plan.attention.moves) {
    CHORUS_RETURN_IF_ERROR(CheckMove(move, info));
    moved_to.insert(move.to_slot);
    if (!written.insert(move.to_slot).second) return PlanError("a slot is written twice");
  }
  for (const KvMove& move : plan.attention.moves) {
    if (moved_to.contains(move.from_slot)) return PlanError("a slot is moved to and from");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStepPlan(const StepPlan& plan, const ModelInfo& info) {
  const size_t num_rows = plan.token_ids.size();
  if (plan.positions.size() != num_rows || plan.slots.size() != num_rows) {
    return PlanError("token_ids, positions and slots differ in length");
  }
  if (!AllBelow(plan.token_ids, info.vocab_size)) return PlanError("a token id is out of range");
  if (!AllBelow(plan.positions, info.max_positions)) return PlanError("a position is out of range");
  if (!AllBelow(plan.slots, info.num_kv_slots) ||
      !AllBelow(plan.attention.slot_table, info.num_kv_slots)) {
    return PlanError("a slot is out of range");
  }
  int32_t next_row = 0;
  for (const AttentionRun& run : plan.attention.runs) {
    CHORUS_RETURN_IF_ERROR(CheckRun(plan, run, next_row, info));
    next_row = run.row_end;
  }
  if (next_row != plan.num_rows()) return PlanError("runs do not cover the rows");
  CHORUS_RETURN_IF_ERROR(CheckMoves(plan, info));
  for (const TokenChoice& choice : plan.choices) {
    CHORUS_RETURN_IF_ERROR(CheckChoice(choice, plan.num_rows(), info));
  }
  for (const AttentionProbe& probe : plan.probes) {
    CHORUS_RETURN_IF_ERROR(CheckProbe(probe, plan.num_rows(), info));
  }
  return absl::OkStatus();
}

}  // namespace chorus
