#include "tests/bench/gpu_kernels_abi.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/tile_plan.h"
#include "core/segment/attention_plan.h"
#include "core/segment/row_intervals.h"
#include "core/segment/segment_layout.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {
namespace {

constexpr const char* kKindNames[] = {"ampere", "hopper"};

std::string last_error;

// Rows of segments and fused rows, as the engine's steps have them.
struct Step {
  AttentionPlan own, fused;
  int64_t num_rows = 0;
  int64_t num_tokens = 0;
};

// Appends the rows of one request; its keys are table entries from step.num_tokens on.
absl::Status AppendRequest(const ChorusRequest& request, Step& step) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = request.prefix_length;
  pieces.segment_lengths.assign(request.segment_lengths,
                                request.segment_lengths + request.num_segments);
  pieces.suffix_length = request.suffix_length;
  const absl::StatusOr<SegmentLayout> layout = SegmentLayout::FromPieces(pieces);
  if (!layout.ok()) return layout.status();
  const int32_t length = layout->length() + request.num_generated;
  const RowIntervals intervals =
      RowIntervals::FromLayout(*layout, length, /*split_segment_columns=*/false);
  for (const RowIntervals::Run& run : intervals.runs()) {
    const int32_t begin = std::max(run.rows.begin, request.first_row);
    if (begin >= run.rows.end) continue;
    AttentionPlan& plan = begin >= layout->original_length() ? step.fused : step.own;
    const auto row_begin = static_cast<int32_t>(step.num_rows);
    const auto interval_begin = static_cast<int32_t>(plan.intervals.size());
    plan.intervals.insert(plan.intervals.end(), run.keys.begin(), run.keys.end());
    step.num_rows += run.rows.end - begin;
    plan.runs.push_back({.row_begin = row_begin,
                         .row_end = static_cast<int32_t>(step.num_rows),
                         .query_begin = begin,
                         .table_begin = static_cast<int32_t>(step.num_tokens),
                         .interval_begin = interval_begin,
                         .interval_end = static_cast<int32_t>(plan.intervals.size())});
  }
  step.num_tokens += length;
  return absl::OkStatus();
}

template <class T>
ChorusArray ArrayOf(const std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T))};
}

}  // namespace
}  // namespace chorus::bench

struct ChorusPlan {
  int32_t kind = 0;
  chorus::DeviceType type = chorus::DeviceType::kBFloat16;
  chorus::AttentionShape shape;
  chorus::TilePlan own, fused;
  std::vector<int32_t> slot_table;
  int64_t num_rows = 0;
};

namespace chorus::bench {
namespace {

absl::StatusOr<std::unique_ptr<ChorusPlan>> MakePlan(const ChorusShape& shape,
                                                     const ChorusRequest* requests,
                                                     int32_t num_requests, const int32_t* slots) {
  auto plan = std::make_unique<ChorusPlan>();
  plan->kind = shape.kind;
  plan->type = shape.is_float16 != 0 ? DeviceType::kFloat16 : DeviceType::kBFloat16;
  plan->shape = {shape.num_heads, shape.num_kv_heads, shape.head_dim,
                 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  if (shape.kind < 0 || shape.kind >= NumKinds()) {
    return absl::InvalidArgumentError(
        absl::StrCat("kind ", shape.kind, " is not one of ", NumKinds()));
  }
  if (!SegmentAttentionTakes(plan->shape)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the kernel ", kKindNames[shape.kind], " does not take ", shape.num_heads, "/",
                     shape.num_kv_heads, " heads of ", shape.head_dim));
  }
  Step step;
  for (int32_t i = 0; i < num_requests; ++i) {
    const absl::Status status = AppendRequest(requests[i], step);
    if (!status.ok()) return status;
  }
  plan->num_rows = step.num_rows;
  plan->slot_table.resize(step.num_tokens);
  if (slots != nullptr) {
    std::copy(slots, slots + step.num_tokens, plan->slot_table.begin());
  } else {
    std::iota(plan->slot_table.begin(), plan->slot_table.end(), 0);
  }
  const auto kernels = CreateKernels(shape.kind, /*stream=*/nullptr, {});
  plan->own = PlanTiles(step.own, {}, kernels->OwnTileShape(plan->shape));
  SortLongestFirst(plan->own);
  plan->fused = PlanTiles(step.fused, {}, kernels->FusedTileShape(plan->shape));
  return plan;
}

DeviceTiles TilesAt(const TilePlan& plan, const void* tiles, const void* spans) {
  return {static_cast<const Tile*>(tiles), static_cast<int32_t>(plan.tiles.size()),
          static_cast<const KeySpan*>(spans), static_cast<int32_t>(plan.spans.size()),
          plan.longest_span};
}

// What the arguments point to.
std::vector<device::HostArray> ArraysOf(const DeviceAttentionArgs& args, const ChorusPlan& plan,
                                        int64_t num_slots) {
  const int64_t num_heads = plan.num_rows * args.shape.num_heads;
  const int64_t kv_bytes = num_slots * args.shape.num_kv_heads * args.shape.head_dim * 2;
  const auto bytes_of = [](const auto& values) {
    return static_cast<int64_t>(values.size() * sizeof(values[0]));
  };
  return {{args.q, num_heads * args.shape.head_dim * 2, false},
          {args.k, kv_bytes, false},
          {args.v, kv_bytes, false},
          {args.own.tiles, bytes_of(plan.own.tiles), false},
          {args.own.spans, bytes_of(plan.own.spans), false},
          {args.fused.tiles, bytes_of(plan.fused.tiles), false},
          {args.fused.spans, bytes_of(plan.fused.spans), false},
          {args.slot_table, bytes_of(plan.slot_table), false},
          {args.out, num_heads * args.shape.head_dim * 2, true},
          {args.log_sum_exp, num_heads * 4, true},
          {args.workspace, AttentionWorkspaceFloats(args.shape, args.fused.num_spans) * 4, true}};
}

}  // namespace
}  // namespace chorus::bench

using chorus::bench::last_error;

int32_t ChorusKindCount() { return chorus::bench::NumKinds(); }
const char* ChorusKindName(int32_t kind) { return chorus::bench::kKindNames[kind]; }
const char* ChorusLastError() { return last_error.c_str(); }

ChorusPlan* ChorusPlanCreate(const ChorusShape* shape, const ChorusRequest* requests,
                             int32_t num_requests, const int32_t* slots) {
  auto plan = chorus::bench::MakePlan(*shape, requests, num_requests, slots);
  if (plan.ok()) return plan->release();
  last_error = std::string(plan.status().message());
  return nullptr;
}

void ChorusPlanDestroy(ChorusPlan* plan) { delete plan; }
int64_t ChorusPlanRows(const ChorusPlan* plan) { return plan->num_rows; }
int64_t ChorusPlanTokens(const ChorusPlan* plan) {
  return static_cast<int64_t>(plan->slot_table.size());
}
int64_t ChorusPlanPairs(const ChorusPlan* plan) {
  return chorus::CountAllowedPairs(plan->own, {}) + chorus::CountAllowedPairs(plan->fused, {});
}
int64_t ChorusWorkspaceFloats(const ChorusPlan* plan) {
  return chorus::AttentionWorkspaceFloats(plan->shape,
                                          static_cast<int32_t>(plan->fused.spans.size()));
}

ChorusArray ChorusPlanArray(const ChorusPlan* plan, int32_t name) {
  using chorus::bench::ArrayOf;
  switch (name) {
    case kChorusOwnTiles:
      return ArrayOf(plan->own.tiles);
    case kChorusOwnSpans:
      return ArrayOf(plan->own.spans);
    case kChorusFusedTiles:
      return ArrayOf(plan->fused.tiles);
    case kChorusFusedSpans:
      return ArrayOf(plan->fused.spans);
    case kChorusSlotTable:
      return ArrayOf(plan->slot_table);
  }
  return {nullptr, 0};
}

int32_t ChorusAttention(const ChorusPlan* plan, const ChorusBuffers* buffers, void* stream) {
  chorus::DeviceAttentionArgs args;
  args.type = plan->type;
  args.shape = plan->shape;
  args.q = buffers->q;
  args.k = buffers->k;
  args.v = buffers->v;
  args.num_slots = static_cast<int32_t>(buffers->num_slots);
  args.out = buffers->out;
  args.log_sum_exp = buffers->log_sum_exp;
  args.slot_table = static_cast<const int32_t*>(buffers->arrays[kChorusSlotTable]);
  args.own = chorus::bench::TilesAt(plan->own, buffers->arrays[kChorusOwnTiles],
                                    buffers->arrays[kChorusOwnSpans]);
  args.fused = chorus::bench::TilesAt(plan->fused, buffers->arrays[kChorusFusedTiles],
                                      buffers->arrays[kChorusFusedSpans]);
  args.workspace = buffers->workspace;
  const absl::Status status =
      chorus::bench::CreateKernels(plan->kind, stream,
                                   chorus::bench::ArraysOf(args, *plan, buffers->num_slots))
          ->SegmentAttention(args);
  last_error = std::string(status.message());
  return status.ok() ? 0 : -1;
}
