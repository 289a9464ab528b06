#include "core/kernels/cuda/host_kernels.h"

#include <string>

#include "absl/status/status.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/cuda/launch_of.h"
#include "core/kernels/cuda/plain_attention.h"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/sampling_kernels.h"
#include "core/kernels/cuda/sampling_workspace.h"
#include "core/kernels/cuda/span_attention.h"

namespace chorus {
namespace {

using device::BFloat16;
using device::LaunchOf;
using device::WithType;

constexpr int32_t kOwnSpanKeys = 1 << 20;

int32_t HeadsPerKvHead(const AttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

}  // namespace

template <class Kernel, class Launch>
absl::Status HostKernels::Start(const Launch& launch, int grid_x, int grid_y) {
  return submit_([launch, grid_x, grid_y, arrays_of = arrays_]() -> absl::Status {
    const std::vector<device::HostArray> arrays = arrays_of();
    const device::HostLaunch host = {.grid_x = grid_x,
                                     .grid_y = grid_y,
                                     .num_threads = Kernel::kThreads,
                                     .shared_bytes = Kernel::kSharedBytes,
                                     .arrays = arrays.data(),
                                     .num_arrays = static_cast<int>(arrays.size())};
    const std::string wrong = device::RunOnHost(host, [&] { Kernel::Run(launch, 0); });
    return wrong.empty() ? absl::OkStatus() : absl::InternalError(wrong);
  });
}

bool HostKernels::TakesShape(const AttentionShape& shape) const {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && HeadsPerKvHead(shape) <= device::kSpanQueries;
}

TileShape HostKernels::OwnTileShape(const AttentionShape& shape) const {
  return {device::PrefillAttention<BFloat16, 64>::kTileQueries / HeadsPerKvHead(shape),
          device::kKeyBlock, kOwnSpanKeys};
}

TileShape HostKernels::FusedTileShape(const AttentionShape& shape) const {
  return device::SpanTileShape(HeadsPerKvHead(shape));
}

int64_t HostKernels::AttentionWorkspaceFloats(const AttentionShape& shape,
                                              int32_t num_spans) const {
  return int64_t{num_spans} * shape.num_kv_heads * device::kSpanQueries * (shape.head_dim + 2);
}

template <class Element, int kHeadDim>
absl::Status HostKernels::StartAttention(const DeviceAttentionArgs& args) {
  const int64_t num_states =
      int64_t{args.fused.num_spans} * args.shape.num_kv_heads * device::kSpanQueries;
  const int grid_y = args.shape.num_kv_heads;
  const auto own = LaunchOf<Element>(args, args.own);
  CHORUS_RETURN_IF_ERROR(
      (Start<device::PrefillAttention<Element, kHeadDim>>(own, args.own.num_tiles, grid_y)));
  auto fused = LaunchOf<Element>(args, args.fused);
  fused.span_values = args.workspace;
  fused.span_max = args.workspace + num_states * kHeadDim;
  fused.span_sum = fused.span_max + num_states;
  CHORUS_RETURN_IF_ERROR(
      (Start<device::SpanAttention<Element, kHeadDim>>(fused, args.fused.num_spans, grid_y)));
  return Start<device::MergeSpans<Element, kHeadDim>>(fused, args.fused.num_tiles, grid_y);
}

absl::Status HostKernels::SegmentAttention(const DeviceAttentionArgs& args) {
  return WithType(args.type, [&](auto element) {
    using Element = decltype(element);
    return args.shape.head_dim == 64 ? StartAttention<Element, 64>(args)
                                     : StartAttention<Element, 128>(args);
  });
}

bool HostKernels::TakesPlainShape(const AttentionShape& shape) const {
  return shape.head_dim > 0 && shape.head_dim % 2 == 0 &&
         shape.head_dim <= device::PlainAttention<BFloat16>::kMaxHeadDim &&
         shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0;
}

TileShape HostKernels::PlainTileShape() const {
  return {.tile_rows = 1, .key_block = 1, .span_keys = device::kPlainSpanKeys};
}

absl::Status HostKernels::PlainAttention(const DeviceAttentionArgs& args,
                                         const DeviceTiles& tiles) {
  return WithType(args.type, [&](auto element) {
    using Kernel = device::PlainAttention<decltype(element)>;
    const int head_blocks = (args.shape.num_heads + Kernel::kWarps - 1) / Kernel::kWarps;
    return Start<Kernel>(LaunchOf<decltype(element)>(args, tiles), tiles.num_tiles, head_blocks);
  });
}

absl::Status HostKernels::ReduceProbes(const DeviceProbes& probes, int32_t layer) {
  return Start<device::ReduceProbes>(LaunchOf(probes, layer), probes.num_probes, probes.num_heads);
}

absl::Status HostKernels::MeanProbes(const DeviceProbes& probes) {
  return Start<device::MeanProbes>(LaunchOf(probes, 0), probes.num_probes);
}

absl::Status HostKernels::Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows,
                                const void* table, int32_t size, float* residual) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::EmbedKernel<Element>;
    const typename Kernel::Launch launch = {token_ids, static_cast<const Element*>(table), residual,
                                            size};
    return Start<Kernel>(launch, num_rows);
  });
}

absl::Status HostKernels::AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                                  int32_t size) {
  return WithType(type, [&](auto element) {
    using Kernel = device::AddBiasKernel<decltype(element)>;
    const typename Kernel::Launch launch = {static_cast<decltype(element)*>(x), bias, size};
    return Start<Kernel>(launch, num_rows);
  });
}

absl::Status HostKernels::GatherRows(DeviceType type, const void* from, const int32_t* rows,
                                     int32_t num_gathered, int32_t size, void* out) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::GatherRowsKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(from), rows,
                                            static_cast<Element*>(out), size};
    return Start<Kernel>(launch, num_gathered);
  });
}

absl::Status HostKernels::GatherFloatRows(const float* from, const int32_t* rows,
                                          int32_t num_gathered, int32_t size, float* out) {
  using Kernel = device::GatherRowsKernel<float>;
  return Start<Kernel>(Kernel::Launch{from, rows, out, size}, num_gathered);
}

absl::Status HostKernels::AddRmsNorm(DeviceType type, float* residual, const void* delta,
                                     const float* weight, int32_t num_rows, int32_t size,
                                     float epsilon, void* out) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::AddRmsNormKernel<Element>;
    const typename Kernel::Launch launch = {residual, static_cast<const Element*>(delta),
                                            weight,   static_cast<Element*>(out),
                                            size,     epsilon};
    return Start<Kernel>(launch, num_rows);
  });
}

absl::Status HostKernels::RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::RopeAndWriteKvKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(args.qkv),
                                            args.positions,
                                            args.slots,
                                            args.cosine,
                                            args.sine,
                                            static_cast<Element*>(args.q_out),
                                            static_cast<Element*>(args.k),
                                            static_cast<Element*>(args.v),
                                            args.shape.num_heads,
                                            args.shape.num_kv_heads,
                                            args.shape.head_dim};
    return Start<Kernel>(launch, args.num_rows,
                         Kernel::NumBlocks(args.shape.num_heads, args.shape.num_kv_heads,
                                           args.shape.head_dim));
  });
}

absl::Status HostKernels::MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                                 int32_t num_moves) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::MoveKvKernel<Element>;
    const typename Kernel::Launch launch = {moves,
                                            rope.cosine,
                                            rope.sine,
                                            static_cast<Element*>(rope.k),
                                            static_cast<Element*>(rope.v),
                                            rope.shape.num_kv_heads,
                                            rope.shape.head_dim};
    return Start<Kernel>(launch, num_moves);
  });
}

absl::Status HostKernels::SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows,
                                       int32_t size, void* out) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::SiluMultiplyKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(gate_up),
                                            static_cast<Element*>(out), size};
    return Start<Kernel>(launch, num_rows, Kernel::NumBlocks(size));
  });
}

int64_t HostKernels::SamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices,
                                            int32_t num_changed_rows, int32_t vocab_size) const {
  device::SamplingLaunch launch;
  return device::PlaceWorkspace({num_rows, num_choices, num_changed_rows, vocab_size}, nullptr,
                                launch);
}

absl::Status HostKernels::Sample(const DeviceSamplingArgs& args) {
  device::SamplingLaunch launch;
  launch.in = args.in;
  launch.out = args.out;
  launch.logits = args.logits;
  launch.combined = args.combined;
  launch.changed = args.changed;
  device::PlaceWorkspace({args.num_rows, args.num_choices, args.num_changed_rows, args.vocab_size},
                         args.workspace, launch);
  const int splits = launch.num_splits;
  CHORUS_RETURN_IF_ERROR(Start<device::RowStatisticsKernel>(launch, args.num_rows, splits));
  if (args.combines) {
    CHORUS_RETURN_IF_ERROR(Start<device::CombineLogitsKernel>(launch, args.num_choices, splits));
  }
  if (args.adjusts) {
    CHORUS_RETURN_IF_ERROR(Start<device::AdjustLogitsKernel>(launch, args.num_choices, splits));
  }
  if (args.compares) {
    CHORUS_RETURN_IF_ERROR(Start<device::DivergenceKernel>(launch, args.num_choices, splits));
  }
  return Start<device::ChooseTokensKernel>(launch, args.num_choices);
}

}  // namespace chorus
