#include "core/kernels/probe_plan.h"

#include <algorithm>
#include <set>

#include "core/base/check.h"

namespace chorus {
namespace {

const AttentionRun& RunOf(const AttentionPlan& plan, int32_t row) {
  const auto holds = [row](const AttentionRun& run) {
    return row >= run.row_begin && row < run.row_end;
  };
  const auto run = std::find_if(plan.runs.begin(), plan.runs.end(), holds);
  CHECK(run != plan.runs.end());
  return *run;
}

// Hands on the pieces of one row, by key, each with the unit that its keys belong to (-1: none).
class PieceCutter {
 public:
  PieceCutter(const AttentionPlan& plan, const AttentionRun& run, int32_t row,
              const AttentionWindow& window)
      : plan_(plan), run_(run), window_(window), row_(row - run.row_begin) {}

  template <class Add>
  void ForEach(const KeyUnits& units, const Add& add) const {
    const bool is_full = window_.is_full();
    auto range = units.ranges.begin();
    const int32_t interval_end = is_full ? run_.interval_end : run_.windowed_end;
    for (int32_t i = is_full ? run_.interval_begin : run_.windowed_begin; i < interval_end; ++i) {
      const ProbePiece seen = Seen(plan_.intervals[i]);
      for (int32_t key = seen.begin; key < seen.end;) {
        while (range != units.ranges.end() && range->end <= key) ++range;
        const bool has_next = range != units.ranges.end();
        const bool is_inside = has_next && range->begin <= key;
        const int32_t until = !has_next ? seen.end : is_inside ? range->end : range->begin;
        const int32_t end = std::min(seen.end, until);
        add(is_inside ? range->unit : -1, ProbePiece{key, end, seen.is_scaled});
        key = end;
      }
    }
  }

 private:
  ProbePiece Seen(const KeyInterval& interval) const {
    ProbePiece seen{interval.begin, std::min(interval.end, run_.query_begin + row_ + 1)};
    if (!window_.is_full()) {
      const int32_t first = window_.FirstPosition(run_.position_begin + row_);
      seen.begin = std::max(seen.begin, first - interval.position_shift);
    }
    seen.is_scaled = run_.scaling >= 0 && interval.is_segment ? 1 : 0;
    return seen;
  }

  const AttentionPlan& plan_;
  const AttentionRun& run_;
  const AttentionWindow& window_;
  const int32_t row_;  // of the run
};

// Index of each of 0..size-1 in `chosen`, or -1.
std::vector<int32_t> OrderOf(std::span<const int32_t> chosen, int32_t size) {
  std::vector<int32_t> order(size, -1);
  for (size_t i = 0; i < chosen.size(); ++i) order[chosen[i]] = static_cast<int32_t>(i);
  return order;
}

class Planner {
 public:
  Planner(const AttentionPlan& plan, const AttentionWindow& window, const ProbedModel& model)
      : plan_(plan), window_(window), model_(model) {}

  ProbePlan Plan(std::span<const RowProbe> probes) {
    out_.logit_offsets.assign(model_.num_rows, -1);
    out_.layer_order.assign(probes.size() * model_.num_layers, -1);
    for (size_t i = 0; i < probes.size(); ++i) {
      AddTask(probes[i]);
      const std::vector<int32_t> layers = OrderOf(probes[i].layers, model_.num_layers);
      for (size_t layer = 0; layer < layers.size(); ++layer) {
        out_.layer_order[layer * probes.size() + i] = layers[layer];
      }
      const std::vector<int32_t> heads = OrderOf(probes[i].heads, model_.num_heads);
      out_.head_order.insert(out_.head_order.end(), heads.begin(), heads.end());
    }
    return std::move(out_);
  }

 private:
  void AddTask(const RowProbe& probe) {
    const AttentionRun& run = RunOf(plan_, probe.row);
    ProbeTask task;
    task.num_keys = run.query_begin + (probe.row - run.row_begin) + 1;
    int64_t& offset = out_.logit_offsets[probe.row];
    if (offset < 0) {  // several probes of a row share its logits
      offset = out_.num_logits;
      out_.num_logits += int64_t{task.num_keys} * model_.num_heads;
    }
    task.logits_begin = offset;
    task.scaling = run.scaling;
    task.unit_begin = out_.num_units;
    task.num_units = probe.units->num_units;
    task.chosen_begin = out_.num_chosen;
    task.num_chosen_heads = static_cast<int32_t>(probe.heads.size());
    task.group_begin = static_cast<int32_t>(out_.piece_begins.size());
    AddPieces(probe, run);
    out_.num_units += task.num_units;
    out_.num_chosen +=
        static_cast<int64_t>(probe.layers.size() * probe.heads.size()) * task.num_units;
    out_.tasks.push_back(task);
  }

  void AddPieces(const RowProbe& probe, const AttentionRun& run) {
    std::vector<std::vector<ProbePiece>> groups(probe.units->num_units + 1);
    PieceCutter(plan_, run, probe.row, window_)
        .ForEach(*probe.units,
                 [&](int32_t unit, const ProbePiece& piece) { groups[unit + 1].push_back(piece); });
    for (const std::vector<ProbePiece>& group : groups) {
      out_.piece_begins.push_back(static_cast<int32_t>(out_.pieces.size()));
      out_.pieces.insert(out_.pieces.end(), group.begin(), group.end());
    }
    out_.piece_begins.push_back(static_cast<int32_t>(out_.pieces.size()));
  }

  const AttentionPlan& plan_;
  const AttentionWindow& window_;
  const ProbedModel model_;
  ProbePlan out_;
};

}  // namespace

ProbePlan PlanProbes(const AttentionPlan& plan, std::span<const RowProbe> probes,
                     const AttentionWindow& window, const ProbedModel& model) {
  return Planner(plan, window, model).Plan(probes);
}

TilePlan PlanProbedOwnRows(const AttentionPlan& plan, std::span<const RowProbe> probes,
                           const AttentionWindow& window, const TileShape& shape) {
  AttentionPlan rows;
  rows.intervals = plan.intervals;
  std::set<int32_t> done;
  for (const RowProbe& probe : probes) {
    AttentionRun run = RunOf(plan, probe.row);
    if (run.is_fused || !done.insert(probe.row).second) continue;
    run.query_begin += probe.row - run.row_begin;
    run.position_begin += probe.row - run.row_begin;
    run.row_begin = probe.row;
    run.row_end = probe.row + 1;
    rows.runs.push_back(run);
  }
  return PlanTiles(rows, window, shape);
}

}  // namespace chorus
