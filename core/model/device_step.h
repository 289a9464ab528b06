#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/step_plan.h"
#include "core/kernels/cuda/device_kernels.h"
#include "core/kernels/probe_plan.h"
#include "core/model/model_config.h"

namespace chorus {

// How the layers of one window attend.
struct WindowKernel {
  AttentionWindow window;
  bool is_plain = false;  // by DeviceKernels::PlainAttention
};

// What laying out a step needs to know of model and device.
struct StepTraits {
  AttentionShape shape;
  int32_t num_layers = 0;
  std::vector<WindowKernel> windows;     // each once
  std::vector<int32_t> window_of_layer;  // [num_layers] index into windows
  TileShape own_tiles, fused_tiles, plain_tiles;
  int32_t scratch_slot = 0;  // that padding rows write

  // INVALID_ARGUMENT: the kernels do not take the model's shape.
  static absl::StatusOr<StepTraits> Create(const ModelConfig& config, const DeviceKernels& kernels,
                                           int32_t scratch_slot);
};

// Sizes of a step that is padded, so that a recorded one can be done with other numbers.
struct StepBucket {
  int32_t num_rows = 0;
  int32_t num_spans = 0;  // of each window
};

// A step's arrays on a device: pointers into one block of its memory, and how much of them is used.
struct DeviceStepView {
  struct Window {
    DeviceTiles own, fused;
    DeviceTiles plain;       // instead of both, where the window's kernel is plain
    DeviceTiles probed_own;  // own rows that are looked at beside the fast kernels
    DeviceProbes probes;     // without buffers; num_probes 0: none
    const int64_t* logit_offsets = nullptr;
  };
  int32_t num_rows = 0;
  int32_t num_own_rows = 0;  // the first ones; the others are fused
  int32_t num_kept_rows = 0;
  int32_t num_kept_own_rows = 0;
  bool keeps_all = false;  // all rows go on past the last keys and values: kept_rows is not read
  int32_t num_moves = 0;
  int32_t num_spans = 0;  // of fused rows, the most of any window
  const int32_t* token_ids = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* slots = nullptr;
  const int32_t* kept_rows = nullptr;  // [num_kept_rows] ascending
  const KvMove* moves = nullptr;
  const SegmentScaling* scalings = nullptr;
  const int32_t* slot_table = nullptr;
  std::vector<Window> windows;  // as StepTraits has them
};

// A StepPlan laid out for a device: rows of prefixes and segments first, fused rows behind them, as
// matrix products and attention have a way of their own for each. All its arrays make one block of
// bytes, which is copied in one piece.
class DeviceStep {
 public:
  // `kept_rows` of the plan, ascending, lead to a choice. Borrows the plan.
  // REQUIRES: CheckStepPlan has passed.
  DeviceStep(const StepPlan& plan, const std::vector<int32_t>& kept_rows, const StepTraits& traits);
  // A padded step of no row, to record.
  DeviceStep(const StepBucket& bucket, const StepTraits& traits);

  // Whether only fused rows are there, without moves and probes: what can be padded.
  bool is_decode() const;
  int32_t num_rows() const { return num_rows_; }
  int32_t num_spans() const;
  int64_t num_table_entries() const;
  // All rows are kept then, and arrays but the last, the slot table, begin where they do in every
  // step of that bucket. REQUIRES: is_decode(), and that the step fits.
  void PadTo(const StepBucket& bucket);

  // Row of the device for each row of the plan.
  const std::vector<int32_t>& row_of() const { return row_of_; }
  // Index among the kept rows of a row of the plan that is kept.
  int32_t KeptIndexOf(int32_t plan_row) const { return kept_index_of_[plan_row]; }
  // By window; empty without probes.
  const std::vector<ProbePlan>& probe_plans() const { return probe_plans_; }

  // Makes the block.
  void Pack();
  const std::vector<char>& bytes() const { return bytes_; }
  // Pointers into a copy of bytes() at `base`, a multiple of 16.
  DeviceStepView ViewAt(const void* base) const;

 private:
  struct WindowTiles {
    TilePlan own, fused, plain, probed_own;
  };
  // Where arrays begin in the block.
  struct TileOffsets {
    int64_t tiles = 0, spans = 0;
  };
  struct WindowOffsets {
    TileOffsets own, fused, plain, probed_own;
    int64_t tasks = 0, pieces = 0, piece_begins = 0, layer_order = 0, head_order = 0,
            logit_offsets = 0;
  };

  void OrderRows(const std::vector<int32_t>& kept_rows);
  void PlanAttention();
  void PlanProbesOf(const AttentionPlan& all);
  void PadTiles(TilePlan& tiles) const;
  template <class T>
  int64_t Append(const std::vector<T>& values, size_t capacity = 0);
  TileOffsets AppendTiles(const TilePlan& tiles);

  const StepPlan* plan_ = nullptr;
  const StepTraits& traits_;
  StepBucket bucket_;
  bool is_padded_ = false;
  int32_t num_rows_ = 0, num_own_rows_ = 0, num_kept_own_rows_ = 0;
  std::vector<int32_t> row_of_, kept_index_of_;
  std::vector<int32_t> token_ids_, positions_, slots_, kept_rows_;  // of the device
  std::vector<AttentionRun> own_runs_, fused_runs_;
  std::vector<WindowTiles> tiles_;
  std::vector<ProbePlan> probe_plans_;

  std::vector<char> bytes_;
  int64_t at_token_ids_ = 0, at_positions_ = 0, at_slots_ = 0, at_kept_rows_ = 0, at_moves_ = 0,
          at_scalings_ = 0, at_slot_table_ = 0;
  std::vector<WindowOffsets> at_windows_;
};

}  // namespace chorus
