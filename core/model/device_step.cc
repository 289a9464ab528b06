#include "core/model/device_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/attention_shapes.h"

namespace chorus {
namespace {

template <class T>
const T* At(const void* base, int64_t offset) {
  return reinterpret_cast<const T*>(static_cast<const char*>(base) + offset);
}

}  // namespace

absl::StatusOr<StepTraits> StepTraits::Create(const ModelConfig& config,
                                              const DeviceKernels& kernels, int32_t scratch_slot) {
  StepTraits traits;
  traits.shape = {
      .num_heads = config.num_heads,
      .num_kv_heads = config.num_kv_heads,
      .head_dim = config.head_dim,
      .softmax_scale = static_cast<float>(1.0 / std::sqrt(double{1.0} * config.head_dim))};
  traits.num_layers = config.num_layers;
  traits.scratch_slot = scratch_slot;
  const bool is_fast = SegmentAttentionTakes(traits.shape);
  if (!is_fast && !PlainAttentionTakes(traits.shape)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the device's kernels do not take ", config.num_heads, " heads of ",
                     config.head_dim, " over ", config.num_kv_heads, " key-value heads"));
  }
  if (is_fast) {
    traits.own_tiles = kernels.OwnTileShape(traits.shape);
    traits.fused_tiles = kernels.FusedTileShape(traits.shape);
  }
  traits.plain_tiles = kPlainTileShape;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const AttentionWindow window = config.WindowOf(layer);
    const auto known =
        std::find_if(traits.windows.begin(), traits.windows.end(),
                     [&](const WindowKernel& kernel) { return kernel.window == window; });
    traits.window_of_layer.push_back(static_cast<int32_t>(known - traits.windows.begin()));
    if (known == traits.windows.end()) {
      traits.windows.push_back({window, !is_fast || !window.is_full()});
    }
  }
  return traits;
}

DeviceStep::DeviceStep(const StepPlan& plan, const std::vector<int32_t>& kept_rows,
                       const StepTraits& traits)
    : plan_(&plan), traits_(traits), num_rows_(plan.num_rows()) {
  OrderRows(kept_rows);
  PlanAttention();
}

DeviceStep::DeviceStep(const StepBucket& bucket, const StepTraits& traits)
    : traits_(traits), tiles_(traits.windows.size()) {
  PadTo(bucket);
}

void DeviceStep::OrderRows(const std::vector<int32_t>& kept_rows) {
  const auto place = [&](bool is_fused, std::vector<AttentionRun>& runs) {
    for (const AttentionRun& run : plan_->attention.runs) {
      if (run.is_fused != is_fused) continue;
      AttentionRun moved = run;
      moved.row_begin = static_cast<int32_t>(token_ids_.size());
      moved.row_end = moved.row_begin + run.row_end - run.row_begin;
      runs.push_back(moved);
      for (int32_t row = run.row_begin; row < run.row_end; ++row) {
        row_of_[row] = static_cast<int32_t>(token_ids_.size());
        token_ids_.push_back(plan_->token_ids[row]);
        positions_.push_back(plan_->positions[row]);
        slots_.push_back(plan_->slots[row]);
      }
    }
  };
  row_of_.assign(num_rows_, 0);
  place(/*is_fused=*/false, own_runs_);
  num_own_rows_ = static_cast<int32_t>(token_ids_.size());
  place(/*is_fused=*/true, fused_runs_);
  for (const int32_t row : kept_rows) kept_rows_.push_back(row_of_[row]);
  std::sort(kept_rows_.begin(), kept_rows_.end());
  const auto index_of = [&](int32_t row) {
    return static_cast<int32_t>(std::lower_bound(kept_rows_.begin(), kept_rows_.end(), row) -
                                kept_rows_.begin());
  };
  num_kept_own_rows_ = index_of(num_own_rows_);
  kept_index_of_.assign(num_rows_, -1);
  for (const int32_t row : kept_rows) kept_index_of_[row] = index_of(row_of_[row]);
}

void DeviceStep::PlanAttention() {
  AttentionPlan part;
  part.intervals = plan_->attention.intervals;
  AttentionPlan all = part;
  all.runs = own_runs_;
  all.runs.insert(all.runs.end(), fused_runs_.begin(), fused_runs_.end());
  for (const WindowKernel& kernel : traits_.windows) {
    WindowTiles& tiles = tiles_.emplace_back();
    if (kernel.is_plain) {
      tiles.plain = PlanTiles(all, kernel.window, traits_.plain_tiles);
      continue;
    }
    part.runs = own_runs_;
    tiles.own = PlanTiles(part, kernel.window, traits_.own_tiles);
    SortLongestFirst(tiles.own);
    part.runs = fused_runs_;
    tiles.fused = PlanTiles(part, kernel.window, traits_.fused_tiles);
  }
  if (!plan_->probes.empty()) PlanProbesOf(all);
}

void DeviceStep::PlanProbesOf(const AttentionPlan& all) {
  std::vector<RowProbe> probes;
  for (const AttentionProbe& probe : plan_->probes) {
    probes.push_back({row_of_[probe.row], probe.units, probe.layers, probe.heads});
  }
  const ProbedModel model = {traits_.num_layers, traits_.shape.num_heads, num_rows_};
  for (size_t i = 0; i < traits_.windows.size(); ++i) {
    const WindowKernel& kernel = traits_.windows[i];
    probe_plans_.push_back(PlanProbes(all, probes, kernel.window, model));
    if (kernel.is_plain) continue;
    tiles_[i].probed_own = PlanProbedOwnRows(all, probes, kernel.window, traits_.plain_tiles);
  }
}

bool DeviceStep::is_decode() const {
  return num_own_rows_ == 0 && plan_->attention.moves.empty() && plan_->probes.empty();
}

int32_t DeviceStep::num_spans() const {
  size_t most = 0;
  for (const WindowTiles& tiles : tiles_) {
    most = std::max({most, tiles.fused.spans.size(), tiles.plain.spans.size()});
  }
  return static_cast<int32_t>(most);
}

int64_t DeviceStep::num_table_entries() const {
  return static_cast<int64_t>(plan_->attention.slot_table.size());
}

// A tile without spans for every row that is not there, so that its attention is zero; one without
// rows, which has all spans that are not there.
void DeviceStep::PadTiles(TilePlan& plan) const {
  for (int32_t row = num_rows_; row < bucket_.num_rows; ++row) {
    plan.tiles.push_back({.row_begin = row, .row_end = row + 1});
  }
  plan.tiles.resize(bucket_.num_rows + 1);
  KeySpan nothing;
  nothing.tile = bucket_.num_rows;
  plan.spans.resize(bucket_.num_spans, nothing);
}

void DeviceStep::PadTo(const StepBucket& bucket) {
  bucket_ = bucket;
  is_padded_ = true;
  for (size_t i = 0; i < tiles_.size(); ++i) {
    PadTiles(traits_.windows[i].is_plain ? tiles_[i].plain : tiles_[i].fused);
  }
  token_ids_.resize(bucket.num_rows, 0);
  positions_.resize(bucket.num_rows, 0);
  slots_.resize(bucket.num_rows, traits_.scratch_slot);
  num_rows_ = bucket.num_rows;
  kept_rows_.clear();
  kept_index_of_ = row_of_;
}

template <class T>
int64_t DeviceStep::Append(const std::vector<T>& values, size_t capacity) {
  constexpr size_t kAlignment = 16;
  const size_t begin = bytes_.size();
  const size_t size = std::max(capacity, values.size()) * sizeof(T);
  bytes_.resize(begin + (size + kAlignment - 1) / kAlignment * kAlignment);
  if (!values.empty()) std::memcpy(bytes_.data() + begin, values.data(), values.size() * sizeof(T));
  return static_cast<int64_t>(begin);
}

DeviceStep::TileOffsets DeviceStep::AppendTiles(const TilePlan& tiles) {
  return {Append(tiles.tiles), Append(tiles.spans)};
}

void DeviceStep::Pack() {
  static const StepPlan kNoPlan;
  const StepPlan& plan = plan_ == nullptr ? kNoPlan : *plan_;
  bytes_.clear();
  at_token_ids_ = Append(token_ids_);
  at_positions_ = Append(positions_);
  at_slots_ = Append(slots_);
  at_kept_rows_ = Append(kept_rows_);
  at_moves_ = Append(plan.attention.moves);
  at_scalings_ = Append(plan.attention.scalings, is_padded_ ? bucket_.num_rows : 0);
  for (size_t i = 0; i < tiles_.size(); ++i) {
    WindowOffsets& at = at_windows_.emplace_back();
    at.own = AppendTiles(tiles_[i].own);
    at.fused = AppendTiles(tiles_[i].fused);
    at.plain = AppendTiles(tiles_[i].plain);
    at.probed_own = AppendTiles(tiles_[i].probed_own);
    if (probe_plans_.empty()) continue;
    const ProbePlan& probes = probe_plans_[i];
    at.tasks = Append(probes.tasks);
    at.pieces = Append(probes.pieces);
    at.piece_begins = Append(probes.piece_begins);
    at.layer_order = Append(probes.layer_order);
    at.head_order = Append(probes.head_order);
    at.logit_offsets = Append(probes.logit_offsets);
  }
  at_slot_table_ = Append(plan.attention.slot_table, 1);  // padding points at its begin
}

DeviceStepView DeviceStep::ViewAt(const void* base) const {
  DeviceStepView view;
  view.num_rows = num_rows_;
  view.num_own_rows = num_own_rows_;
  view.keeps_all = is_padded_;
  view.num_kept_rows = is_padded_ ? num_rows_ : static_cast<int32_t>(kept_rows_.size());
  view.num_kept_own_rows = num_kept_own_rows_;
  view.num_moves = plan_ == nullptr ? 0 : static_cast<int32_t>(plan_->attention.moves.size());
  view.token_ids = At<int32_t>(base, at_token_ids_);
  view.positions = At<int32_t>(base, at_positions_);
  view.slots = At<int32_t>(base, at_slots_);
  view.kept_rows = At<int32_t>(base, at_kept_rows_);
  view.moves = At<KvMove>(base, at_moves_);
  view.scalings = At<SegmentScaling>(base, at_scalings_);
  view.slot_table = At<int32_t>(base, at_slot_table_);
  const auto tiles_at = [&](const TilePlan& plan, const TileOffsets& at) {
    return DeviceTiles{At<Tile>(base, at.tiles), static_cast<int32_t>(plan.tiles.size()),
                       At<KeySpan>(base, at.spans), static_cast<int32_t>(plan.spans.size()),
                       plan.longest_span};
  };
  for (size_t i = 0; i < tiles_.size(); ++i) {
    const WindowOffsets& at = at_windows_[i];
    DeviceStepView::Window& window = view.windows.emplace_back();
    window.own = tiles_at(tiles_[i].own, at.own);
    window.fused = tiles_at(tiles_[i].fused, at.fused);
    window.plain = tiles_at(tiles_[i].plain, at.plain);
    window.probed_own = tiles_at(tiles_[i].probed_own, at.probed_own);
    view.num_spans = std::max(view.num_spans, window.fused.num_spans);
    if (probe_plans_.empty()) continue;
    window.probes.tasks = At<ProbeTask>(base, at.tasks);
    window.probes.num_probes = static_cast<int32_t>(probe_plans_[i].tasks.size());
    window.probes.pieces = At<ProbePiece>(base, at.pieces);
    window.probes.piece_begins = At<int32_t>(base, at.piece_begins);
    window.probes.layer_order = At<int32_t>(base, at.layer_order);
    window.probes.head_order = At<int32_t>(base, at.head_order);
    window.probes.scalings = view.scalings;
    window.probes.num_layers = traits_.num_layers;
    window.probes.num_heads = traits_.shape.num_heads;
    window.logit_offsets = At<int64_t>(base, at.logit_offsets);
  }
  return view;
}

}  // namespace chorus
