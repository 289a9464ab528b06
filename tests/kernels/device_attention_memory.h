#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/cuda/device_args.h"
#include "core/kernels/tile_plan.h"
#include "core/segment/attention_plan.h"
#include "tests/kernels/device_test_support.h"

namespace chorus::device {

// What the attention kernels read and write, in host memory. What no kernel has written is NaN.
template <class Element>
struct AttentionMemory {
  // Of a batch with `shape`, `q`, `k` and `v`, which outlives it.
  template <class Batch>
  explicit AttentionMemory(const Batch& batch)
      : shape(batch.shape),
        q(batch.q),
        k(batch.k),
        v(batch.v),
        out(q.size(), Element{0xFFFF}),
        log_sum_exp(q.size() / shape.head_dim, std::nanf("")) {}

  void SetFused(TilePlan tiles) {
    fused = std::move(tiles);
    const auto num_spans = static_cast<int32_t>(fused.spans.size());
    workspace.assign(AttentionWorkspaceFloats(shape, num_spans), std::nanf(""));
  }

  static DeviceTiles TilesOf(const TilePlan& plan) {
    return {plan.tiles.data(), static_cast<int32_t>(plan.tiles.size()), plan.spans.data(),
            static_cast<int32_t>(plan.spans.size()), plan.longest_span};
  }
  DeviceAttentionArgs Args() {
    return {.type = kTypeOf<Element>,
            .shape = shape,
            .q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .num_slots = static_cast<int32_t>(k.size()) / shape.num_kv_heads / shape.head_dim,
            .out = out.data(),
            .log_sum_exp = log_sum_exp.data(),
            .slot_table = slot_table.data(),
            .scalings = scalings.data(),
            .logits = logits.data(),
            .logit_offsets = logit_offsets.empty() ? nullptr : logit_offsets.data(),
            .own = TilesOf(own),
            .fused = TilesOf(fused),
            .workspace = workspace.data()};
  }
  std::vector<HostArray> Arrays() {
    return {ReadOnly(q),
            ReadOnly(k),
            ReadOnly(v),
            ReadOnly(own.tiles),
            ReadOnly(own.spans),
            ReadOnly(fused.tiles),
            ReadOnly(fused.spans),
            ReadOnly(slot_table),
            ReadOnly(scalings),
            Writable(out),
            Writable(log_sum_exp),
            Writable(workspace),
            ReadOnly(logit_offsets),
            Writable(logits)};
  }

  const AttentionShape shape;
  const std::vector<Element>&q, &k, &v;
  std::vector<int32_t> slot_table;
  std::vector<SegmentScaling> scalings;
  TilePlan own, fused;
  std::vector<Element> out;
  std::vector<float> log_sum_exp;
  std::vector<int64_t> logit_offsets;  // empty: no logits are wanted
  std::vector<float> logits;
  std::vector<float> workspace;
};

}  // namespace chorus::device
