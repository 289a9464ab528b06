#pragma once

#include <cstdint>

#include "core/kernels/cuda/attention_launch.h"
#include "core/kernels/cuda/attention_shapes.h"
#include "core/kernels/cuda/device_args.h"
#include "core/kernels/cuda/reduce_probes.h"
#include "core/kernels/cuda/sampling_workspace.h"

// From the untyped arguments of a launch to what its kernel takes: the same for a GPU and for the
// simulated device.
namespace chorus::device {

// Calls start(Element()) for the element of `type`.
template <class StartOf>
auto WithType(DeviceType type, const StartOf& start) {
  return type == DeviceType::kBFloat16 ? start(BFloat16()) : start(Float16());
}

// How rows of prefixes and segments are to be cut for `Kernel`, which computes them; they are not
// split into spans.
template <class Kernel>
TileShape OwnTileShapeOf(const AttentionShape& shape) {
  return {Kernel::kTileQueries / HeadsPerKvHead(shape), Kernel::kKeyBlock, 1 << 20};
}

// The same for SpanAttention and rows that see everything: 128 keys a span, or a 32nd of the row's.
// By arithmetic for an H200: a block's first 64 keys take 3.4 us, the next 0.4, others 0.6; 8 spans
// are merged in 1.7 us, 32 in 3. So 1,000 keys are 64 blocks of 4 us; 32k, 100k and full batches
// have blocks enough to be bound by memory.
inline TileShape FusedTileShapeOf(const AttentionShape& shape) {
  return {kSpanQueries / HeadsPerKvHead(shape), kKeyBlock, /*span_keys=*/128, /*max_spans=*/32};
}

template <class Element>
AttentionLaunch<Element> LaunchOf(const DeviceAttentionArgs& args, const DeviceTiles& tiles) {
  AttentionLaunch<Element> launch;
  launch.q = static_cast<const Element*>(args.q);
  launch.k = static_cast<const Element*>(args.k);
  launch.v = static_cast<const Element*>(args.v);
  launch.tiles = tiles.tiles;
  launch.spans = tiles.spans;
  launch.slot_table = args.slot_table;
  launch.scalings = args.scalings;
  launch.out = static_cast<Element*>(args.out);
  launch.log_sum_exp = args.log_sum_exp;
  launch.num_heads = args.shape.num_heads;
  launch.num_kv_heads = args.shape.num_kv_heads;
  launch.heads_per_kv_head = HeadsPerKvHead(args.shape);
  launch.softmax_scale = args.shape.softmax_scale;
  launch.head_dim = args.shape.head_dim;
  launch.logits = args.logits;
  launch.logit_offsets = args.logit_offsets;
  return launch;
}

// Of SpanAttention and MergeSpans.
template <class Element>
AttentionLaunch<Element> FusedLaunchOf(const DeviceAttentionArgs& args) {
  AttentionLaunch<Element> launch = LaunchOf<Element>(args, args.fused);
  const int64_t num_states = int64_t{args.fused.num_spans} * args.shape.num_kv_heads * kSpanQueries;
  launch.span_values = args.workspace;
  launch.span_max = args.workspace + num_states * args.shape.head_dim;
  launch.span_sum = launch.span_max + num_states;
  return launch;
}

inline ProbeLaunch LaunchOf(const DeviceProbes& probes, int32_t layer) {
  ProbeLaunch launch;
  launch.tasks = probes.tasks;
  launch.pieces = probes.pieces;
  launch.piece_begins = probes.piece_begins;
  launch.layer_order = probes.layer_order + int64_t{layer} * probes.num_probes;
  launch.head_order = probes.head_order;
  launch.scalings = probes.scalings;
  launch.logits = probes.logits;
  launch.mass_sums = probes.mass_sums;
  launch.mean_mass = probes.mean_mass;
  launch.mass = probes.mass;
  launch.mean_logits = probes.mean_logits;
  launch.num_heads = probes.num_heads;
  launch.is_first_layer = layer == 0 ? 1 : 0;
  launch.mean_factor =
      1.0f / (static_cast<float>(probes.num_layers) * static_cast<float>(probes.num_heads));
  return launch;
}

inline SamplingLaunch LaunchOf(const DeviceSamplingArgs& args) {
  SamplingLaunch launch;
  launch.in = args.in;
  launch.out = args.out;
  launch.logits = args.logits;
  launch.combined = args.combined;
  launch.changed = args.changed;
  PlaceWorkspace({args.num_rows, args.num_choices, args.num_changed_rows, args.vocab_size},
                 args.workspace, launch);
  return launch;
}

}  // namespace chorus::device
