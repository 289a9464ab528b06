#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/plain_attention.h"
#include "core/kernels/cuda/span_attention.h"
#include "core/kernels/probe_plan.h"
#include "core/kernels/segment_attention.h"
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/kernel_test_support.h"

namespace chorus::device {

// Random runs of own and fused rows. Slots that no run's keys lie in are NaN.
template <class Element>
struct DeviceBatch {
  AttentionShape shape;
  AttentionPlan plan;
  std::vector<Element> q, k, v;
  std::vector<float> q32, k32, v32;  // the same numbers

  int32_t num_rows() const {
    return static_cast<int32_t>(q.size() / (shape.num_heads * shape.head_dim));
  }
  AttentionArgs ReferenceArgs(const AttentionWindow& window) {
    AttentionArgs args;
    args.shape = shape;
    args.q = q32.data();
    const int64_t num_slots = static_cast<int64_t>(k.size()) / shape.num_kv_heads / shape.head_dim;
    args.kv = {KvType::kFloat32, k32.data(), v32.data(), static_cast<int32_t>(num_slots)};
    args.window = window;
    return args;
  }
};

inline AttentionShape ShapeOfHeads(int32_t num_heads, int32_t num_kv_heads, int32_t head_dim) {
  return {num_heads, num_kv_heads, head_dim, 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

template <class Element>
DeviceBatch<Element> RandomDeviceBatch(const AttentionShape& shape, int num_runs, int32_t max_keys,
                                       uint32_t seed) {
  std::mt19937 random(seed);
  DeviceBatch<Element> batch;
  batch.shape = shape;
  batch.plan.scalings = {{0.9f, 0.8f, -0.5f}, {1.3f, 1.1f, 0.7f}};
  std::vector<int32_t> free_slots(num_runs * max_keys);
  std::iota(free_slots.begin(), free_slots.end(), 0);
  std::shuffle(free_slots.begin(), free_slots.end(), random);
  const int64_t slot_size = int64_t{shape.num_kv_heads} * shape.head_dim;
  const int64_t kv_size = static_cast<int64_t>(free_slots.size()) * slot_size;
  batch.k = RandomElements<Element>(kv_size, 1.0f, random);
  batch.v = RandomElements<Element>(kv_size, 1.0f, random);
  for (int i = 0; i < num_runs; ++i) test::AppendRun(max_keys, free_slots, random, batch.plan);
  for (int32_t slot : free_slots) {
    std::fill_n(batch.k.begin() + slot * slot_size, slot_size, Element{0xFFFF});
    std::fill_n(batch.v.begin() + slot * slot_size, slot_size, Element{0xFFFF});
  }
  const int64_t num_rows = batch.plan.runs.back().row_end;
  batch.q = RandomElements<Element>(num_rows * shape.num_heads * shape.head_dim, 3.0f, random);
  batch.q32 = ToFloats(batch.q);
  batch.k32 = ToFloats(batch.k);
  batch.v32 = ToFloats(batch.v);
  return batch;
}

inline AttentionPlan RunsOfKind(const AttentionPlan& plan, bool is_fused) {
  AttentionPlan of_kind = plan;
  std::erase_if(of_kind.runs,
                [is_fused](const AttentionRun& run) { return run.is_fused != is_fused; });
  return of_kind;
}

inline constexpr TileShape kPlainTileShape = {1, 1, kPlainSpanKeys};

// Runs kernels over a batch; every launch is checked for races and bounds. What no kernel has
// written is NaN.
template <class Element>
class HostAttention {
 public:
  explicit HostAttention(const DeviceBatch<Element>& batch, uint32_t seed = 1)
      : batch_(batch),
        seed_(seed),
        out_(batch.q.size(), Element{0xFFFF}),
        log_sum_exp_(int64_t{batch.num_rows()} * batch.shape.num_heads, std::nanf("")) {}

  const std::vector<Element>& out() const { return out_; }
  const std::vector<float>& log_sum_exp() const { return log_sum_exp_; }
  const std::vector<float>& logits() const { return logits_; }  // of the rows that are looked at

  // From here on the kernels give the logits of these rows.
  void GiveLogits(const ProbePlan& probes) {
    logit_offsets_ = probes.logit_offsets;
    logits_.assign(probes.num_logits, std::nanf(""));
  }

  void RunPlain(const TilePlan& tiles, bool has_outputs = true) {
    using Kernel = PlainAttention<Element>;
    const int grid_y = (batch_.shape.num_heads + Kernel::kWarps - 1) / Kernel::kWarps;
    Launch<Kernel>(tiles, static_cast<int>(tiles.tiles.size()), grid_y, has_outputs);
  }

  // The fused rows, without a window.
  template <int kHeadDim>
  void RunFused(const AttentionPlan& plan) {
    const int32_t heads = batch_.shape.num_heads / batch_.shape.num_kv_heads;
    const TilePlan tiles =
        PlanTiles(RunsOfKind(plan, true), {}, {kSpanQueries / heads, kKeyBlock, 128});
    const size_t states = tiles.spans.size() * batch_.shape.num_kv_heads * kSpanQueries;
    values_.assign(states * kHeadDim, std::nanf(""));
    max_.assign(states, std::nanf(""));
    sum_.assign(states, std::nanf(""));
    const int grid_y = batch_.shape.num_kv_heads;
    Launch<SpanAttention<Element, kHeadDim>>(tiles, static_cast<int>(tiles.spans.size()), grid_y);
    Launch<MergeSpans<Element, kHeadDim>>(tiles, static_cast<int>(tiles.tiles.size()), grid_y);
  }

 private:
  template <class Kernel>
  void Launch(const TilePlan& tiles, int grid_x, int grid_y, bool has_outputs = true) {
    AttentionLaunch<Element> launch;
    launch.q = batch_.q.data();
    launch.k = batch_.k.data();
    launch.v = batch_.v.data();
    launch.tiles = tiles.tiles.data();
    launch.spans = tiles.spans.data();
    launch.slot_table = batch_.plan.slot_table.data();
    launch.scalings = batch_.plan.scalings.data();
    launch.out = has_outputs ? out_.data() : nullptr;
    launch.log_sum_exp = has_outputs ? log_sum_exp_.data() : nullptr;
    launch.num_heads = batch_.shape.num_heads;
    launch.num_kv_heads = batch_.shape.num_kv_heads;
    launch.heads_per_kv_head = batch_.shape.num_heads / batch_.shape.num_kv_heads;
    launch.softmax_scale = batch_.shape.softmax_scale;
    launch.head_dim = batch_.shape.head_dim;
    launch.logits = logits_.data();
    launch.logit_offsets = logit_offsets_.empty() ? nullptr : logit_offsets_.data();
    launch.span_values = values_.data();
    launch.span_max = max_.data();
    launch.span_sum = sum_.data();
    const HostArray arrays[] = {
        ReadOnly(batch_.q),       ReadOnly(batch_.k),     ReadOnly(batch_.v),
        ReadOnly(tiles.tiles),    ReadOnly(tiles.spans),  ReadOnly(batch_.plan.slot_table),
        Writable(out_),           Writable(log_sum_exp_), ReadOnly(batch_.plan.scalings),
        Writable(values_),        Writable(max_),         Writable(sum_),
        ReadOnly(logit_offsets_), Writable(logits_)};
    const HostLaunch host = {.grid_x = grid_x,
                             .grid_y = grid_y,
                             .num_threads = Kernel::kThreads,
                             .shared_bytes = Kernel::kSharedBytes,
                             .seed = seed_,
                             .arrays = arrays,
                             .num_arrays = static_cast<int>(std::size(arrays))};
    ASSERT_EQ(RunOnHost(host, [&] { Kernel::Run(launch, 0); }), "");
  }

  const DeviceBatch<Element>& batch_;
  const uint32_t seed_;
  std::vector<Element> out_;
  std::vector<float> log_sum_exp_;
  std::vector<int64_t> logit_offsets_;
  std::vector<float> logits_;
  std::vector<float> values_, max_, sum_;  // of spans
};

}  // namespace chorus::device
