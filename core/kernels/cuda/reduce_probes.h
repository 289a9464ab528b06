#pragma once

#include <cstdint>

#include "core/kernels/cuda/softmax_parts.h"
#include "core/kernels/cuda/warp_reduce.h"
#include "core/kernels/probe_plan.h"

namespace chorus::device {

// What the probes of a step found in one layer. Pointers are device memory; the first ones are the
// arrays of a ProbePlan.
struct ProbeLaunch {
  const ProbeTask* tasks = nullptr;
  const ProbePiece* pieces = nullptr;
  const int32_t* piece_begins = nullptr;
  const int32_t* layer_order = nullptr;  // [num_probes], of this layer
  const int32_t* head_order = nullptr;   // [num_probes, num_heads]
  const SegmentScaling* scalings = nullptr;
  const float* logits = nullptr;  // of all probed rows: q k * softmax_scale
  // Probe by probe [num_heads, num_units]: mass, summed over the layers so far.
  float* mass_sums = nullptr;
  float* mean_mass = nullptr;    // of MeanProbes: probe by probe [num_units]
  float* mass = nullptr;         // probe by probe [layers, heads, num_units] of those asked for
  float* mean_logits = nullptr;  // like mass
  int32_t num_heads = 0;
  int32_t is_first_layer = 0;  // 1: mass_sums begin here
  float mean_factor = 0.0f;    // of MeanProbes: 1 / (layers * heads)
};

// Logits to mass by unit, after SegmentScaling, and mean logit by unit, before softmax and scaling;
// as AttentionStatistics has them. Grid: [num_probes, num_heads]. Sums are in an order that depends
// on the probe's pieces only. Looks at the logits a few times, never at a key.
struct ReduceProbes {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kSharedBytes = kWarps * 4 * 4;
  using Launch = ProbeLaunch;

  // Of both softmaxes of the row; logits in units of log 2, those of segments over T.
  struct Parts {
    SoftmaxPart others, segments;
  };
  struct Row {
    const float* logits;  // by key
    float others_scale;   // logit -> units of log 2
    float segments_scale;
  };

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress shared) {
    const ProbeTask task = LoadGlobal(launch.tasks + BlockX());
    const int head = BlockY();
    Row row{launch.logits + task.logits_begin + int64_t{head} * task.num_keys, kLog2E, kLog2E};
    if (task.scaling >= 0) {
      row.segments_scale /= LoadGlobal(&launch.scalings[task.scaling].temperature);
    }
    const int32_t* groups = launch.piece_begins + task.group_begin;
    const Parts parts =
        PartsOf(launch, row, LoadGlobal(groups), LoadGlobal(groups + task.num_units + 1), shared);
    const PartFactors factors =
        MergeParts(parts.others, parts.segments, launch.scalings, task.scaling);
    for (int unit = ThreadIndex() / kWarpSize; unit < task.num_units; unit += kWarps) {
      AddUnit(launch, task, row, unit, parts, factors);
    }
  }

  // Of the keys in pieces [begin, end): every thread takes some, then all threads' are merged.
  CHORUS_DEVICE static Parts PartsOf(const Launch& launch, const Row& row, int begin, int end,
                                     SharedAddress shared) {
    Parts parts{{MinusInfinity(), 0.0f}, {MinusInfinity(), 0.0f}};
    for (int i = begin; i < end; ++i) {
      const ProbePiece piece = LoadGlobal(launch.pieces + i);
      for (int key = piece.begin + ThreadIndex(); key < piece.end; key += kThreads) {
        const float logit = LoadGlobal(row.logits + key);
        if (piece.is_scaled != 0) {
          Merge(parts.segments, {logit * row.segments_scale, 1.0f});
        } else {
          Merge(parts.others, {logit * row.others_scale, 1.0f});
        }
      }
    }
    const SharedAddress of_warp = shared + ThreadIndex() / kWarpSize * 16;
    StorePart(MergeWarp(parts.others), of_warp);
    StorePart(MergeWarp(parts.segments), of_warp + 8);
    SyncThreads();
    parts = {{MinusInfinity(), 0.0f}, {MinusInfinity(), 0.0f}};
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      Merge(parts.others, LoadPart(shared + warp * 16));
      Merge(parts.segments, LoadPart(shared + warp * 16 + 8));
    }
    return parts;
  }

  CHORUS_DEVICE static void Merge(SoftmaxPart& part, const SoftmaxPart& added) {
    if (added.sum == 0.0f) return;
    const float max = Max(part.max, added.max);
    part.sum = part.sum * Exp2(part.max - max) + added.sum * Exp2(added.max - max);
    part.max = max;
  }

  CHORUS_DEVICE static SoftmaxPart MergeWarp(const SoftmaxPart& part) {
    const float max = MaxOfWarp(part.max);
    const float sum = part.sum > 0.0f ? part.sum * Exp2(part.max - max) : 0.0f;
    return {max, SumOfWarp(sum)};
  }

  CHORUS_DEVICE static void StorePart(const SoftmaxPart& part, SharedAddress to) {
    if (ThreadIndex() % kWarpSize != 0) return;
    StoreShared(to, part.max);
    StoreShared(to + 4, part.sum);
  }
  CHORUS_DEVICE static SoftmaxPart LoadPart(SharedAddress from) {
    return {LoadShared(from), LoadShared(from + 4)};
  }

  CHORUS_DEVICE static void AddUnit(const Launch& launch, const ProbeTask& task, const Row& row,
                                    int unit, const Parts& parts, const PartFactors& factors) {
    const int32_t* groups = launch.piece_begins + task.group_begin + 1;
    const int lane = ThreadIndex() % kWarpSize;
    float mass = 0.0f, logit_sum = 0.0f;
    int num_keys = 0;
    const int end = LoadGlobal(groups + unit + 1);
    for (int i = LoadGlobal(groups + unit); i < end; ++i) {
      const ProbePiece piece = LoadGlobal(launch.pieces + i);
      const bool is_scaled = piece.is_scaled != 0;
      const float scale = is_scaled ? row.segments_scale : row.others_scale;
      const float max = is_scaled ? parts.segments.max : parts.others.max;
      float weights = 0.0f;
      for (int key = piece.begin + lane; key < piece.end; key += kWarpSize) {
        const float logit = LoadGlobal(row.logits + key);
        weights += Exp2(logit * scale - max);
        logit_sum += logit;
      }
      mass += weights * (is_scaled ? factors.segments : factors.others);
      num_keys += piece.end - piece.begin;
    }
    // No key: 0 / 0, not a number.
    const float mean_logit = SumOfWarp(logit_sum) / static_cast<float>(num_keys);
    mass = SumOfWarp(mass);
    if (lane == 0) Write(launch, task, unit, mass, mean_logit);
  }

  CHORUS_DEVICE static void Write(const Launch& launch, const ProbeTask& task, int unit, float mass,
                                  float mean_logit) {
    const int head = BlockY();
    float* sum = launch.mass_sums + int64_t{task.unit_begin} * launch.num_heads +
                 int64_t{head} * task.num_units + unit;
    StoreGlobal(sum, launch.is_first_layer != 0 ? mass : LoadGlobal(sum) + mass);
    const int layer_index = LoadGlobal(launch.layer_order + BlockX());
    if (layer_index < 0) return;
    const int head_index = LoadGlobal(launch.head_order + BlockX() * launch.num_heads + head);
    if (head_index < 0) return;
    const int64_t at =
        task.chosen_begin +
        (int64_t{layer_index} * task.num_chosen_heads + head_index) * task.num_units + unit;
    StoreGlobal(launch.mass + at, mass);
    StoreGlobal(launch.mean_logits + at, mean_logit);
  }
};

// After the last layer: mean_mass = the mean of mass over layers and heads, heads in order. Grid:
// [num_probes].
struct MeanProbes {
  static constexpr int kThreads = 128;
  static constexpr int kSharedBytes = 0;
  using Launch = ProbeLaunch;

  CHORUS_DEVICE static void Run(const Launch& launch, SharedAddress) {
    const ProbeTask task = LoadGlobal(launch.tasks + BlockX());
    const float* sums = launch.mass_sums + int64_t{task.unit_begin} * launch.num_heads;
    for (int unit = ThreadIndex(); unit < task.num_units; unit += kThreads) {
      float sum = 0.0f;
      for (int head = 0; head < launch.num_heads; ++head) {
        sum += LoadGlobal(sums + int64_t{head} * task.num_units + unit);
      }
      StoreGlobal(launch.mean_mass + task.unit_begin + unit, sum * launch.mean_factor);
    }
  }
};

}  // namespace chorus::device
