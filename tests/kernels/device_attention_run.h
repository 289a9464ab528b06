#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/probe_plan.h"
#include "core/kernels/segment_attention.h"
#include "tests/kernels/device_attention_memory.h"
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

// Runs kernels over a batch; every launch is checked for races and bounds.
template <class Element>
class HostAttention {
 public:
  explicit HostAttention(const DeviceBatch<Element>& batch, uint32_t seed = 1)
      : memory_(batch), seed_(seed) {
    memory_.slot_table = batch.plan.slot_table;
    memory_.scalings = batch.plan.scalings;
  }

  const std::vector<Element>& out() const { return memory_.out; }
  const std::vector<float>& log_sum_exp() const { return memory_.log_sum_exp; }
  const std::vector<float>& logits() const { return memory_.logits; }  // of rows looked at

  // From here on the kernels give the logits of these rows.
  void GiveLogits(const ProbePlan& probes) {
    memory_.logit_offsets = probes.logit_offsets;
    memory_.logits.assign(probes.num_logits, std::nanf(""));
  }

  void RunPlain(const TilePlan& tiles, bool has_outputs = true) {
    memory_.own = tiles;
    DeviceAttentionArgs args = memory_.Args();
    if (!has_outputs) args.out = args.log_sum_exp = nullptr;
    ASSERT_EQ(Kernels()->PlainAttention(args, args.own), absl::OkStatus());
  }

  // The fused rows, without a window.
  void RunFused(const AttentionPlan& plan) {
    memory_.own = {};
    memory_.SetFused(
        PlanTiles(RunsOfKind(plan, true), {}, Kernels()->FusedTileShape(memory_.shape)));
    ASSERT_EQ(Kernels()->SegmentAttention(memory_.Args()), absl::OkStatus());
  }

 private:
  std::unique_ptr<DeviceKernels> Kernels() {
    return KernelsOver(memory_.Arrays(), {.seed = seed_});
  }

  AttentionMemory<Element> memory_;
  const uint32_t seed_;
};

}  // namespace chorus::device
