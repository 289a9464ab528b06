#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/launch_of.h"
#include "core/kernels/probe_plan.h"
#include "core/kernels/segment_attention.h"
#include "tests/kernels/device_attention_memory.h"
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/kernels/test_device.h"

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

inline DeviceTiles TilesAt(const test::Addresses& at, DeviceTiles tiles) {
  tiles.tiles = at(tiles.tiles);
  tiles.spans = at(tiles.spans);
  return tiles;
}

// The arguments, with pointers to the device.
inline DeviceAttentionArgs ArgsAt(const test::Addresses& at, DeviceAttentionArgs args) {
  args.q = at(args.q);
  args.k = at(args.k);
  args.v = at(args.v);
  args.out = at(args.out);
  args.log_sum_exp = at(args.log_sum_exp);
  args.slot_table = at(args.slot_table);
  args.scalings = at(args.scalings);
  args.logits = at(args.logits);
  args.logit_offsets = at(args.logit_offsets);
  args.own = TilesAt(at, args.own);
  args.fused = TilesAt(at, args.fused);
  args.workspace = at(args.workspace);
  return args;
}

// Runs kernels over a batch on the test's device.
template <class Element>
class AttentionOnDevice {
 public:
  explicit AttentionOnDevice(const DeviceBatch<Element>& batch, uint32_t seed = 1)
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
    memory_.SetFused({});
    Run([has_outputs](DeviceKernels& kernels, DeviceAttentionArgs args) {
      if (!has_outputs) args.out = args.log_sum_exp = nullptr;
      return kernels.PlainAttention(args, args.own);
    });
  }

  // The fused rows, without a window.
  void RunFused(const AttentionPlan& plan) {
    memory_.own = {};
    memory_.SetFused(PlanTiles(RunsOfKind(plan, true), {}, FusedTileShapeOf(memory_.shape)));
    Run([](DeviceKernels& kernels, const DeviceAttentionArgs& args) {
      return kernels.SegmentAttention(args);
    });
  }

 private:
  template <class Start>
  void Run(const Start& start) {
    ASSERT_EQ(test::RunOnDevice(memory_.Arrays(), seed_,
                                [&](DeviceKernels& kernels, const test::Addresses& at) {
                                  return start(kernels, ArgsAt(at, memory_.Args()));
                                }),
              absl::OkStatus());
  }

  AttentionMemory<Element> memory_;
  const uint32_t seed_;
};

}  // namespace chorus::device
