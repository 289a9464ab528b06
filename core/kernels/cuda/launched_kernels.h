#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/device_kernels.h"
#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/launch_of.h"
#include "core/kernels/cuda/plain_attention.h"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/sampling_kernels.h"
#include "core/kernels/cuda/span_attention.h"

namespace chorus {

// What DeviceKernels are on any device; a Starter knows how its device starts a kernel:
//   template <class Kernel>
//   absl::Status Start(const char* what, const typename Kernel::Launch&, int32_t grid_x,
//                      int32_t grid_y)       `what` stands in errors; an empty grid is no work
//   template <class Element, int kHeadDim>
//   bool is_hopper() const   whether HopperAttention computes the rows of prefixes and segments
//   absl::Status StartHopper(const char* what, const DeviceAttentionArgs&)
//   TileShape FusedTileShape(const AttentionShape&)  of rows that see everything
template <class Starter>
class LaunchedKernels : public DeviceKernels {
 public:
  explicit LaunchedKernels(Starter starter) : starter_(std::move(starter)) {}

  TileShape OwnTileShape(const AttentionShape& shape) const override {
    using device::BFloat16;
    return starter_.is_hopper()
               ? device::OwnTileShapeOf<device::HopperAttention<BFloat16, 64>>(shape)
               : device::OwnTileShapeOf<device::PrefillAttention<BFloat16, 64>>(shape);
  }
  TileShape FusedTileShape(const AttentionShape& shape) const override {
    return starter_.FusedTileShape(shape);
  }

  absl::Status SegmentAttention(const DeviceAttentionArgs& args) override {
    return device::WithType(args.type, [&](auto element) {
      using Element = decltype(element);
      return args.shape.head_dim == 64 ? StartAttention<Element, 64>(args)
                                       : StartAttention<Element, 128>(args);
    });
  }

  absl::Status PlainAttention(const DeviceAttentionArgs& args, const DeviceTiles& tiles) override {
    return device::WithType(args.type, [&](auto element) {
      using Kernel = device::PlainAttention<decltype(element)>;
      const int32_t head_blocks = (args.shape.num_heads + Kernel::kWarps - 1) / Kernel::kWarps;
      return Start<Kernel>("the kernel of plain attention",
                           device::LaunchOf<decltype(element)>(args, tiles), tiles.num_tiles,
                           head_blocks);
    });
  }

  absl::Status ReduceProbes(const DeviceProbes& probes, int32_t layer) override {
    return Start<device::ReduceProbes>("the kernel of probes", device::LaunchOf(probes, layer),
                                       probes.num_probes, probes.num_heads);
  }
  absl::Status MeanProbes(const DeviceProbes& probes) override {
    return Start<device::MeanProbes>("the kernel of probes' means", device::LaunchOf(probes, 0),
                                     probes.num_probes);
  }

  absl::Status Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows, const void* table,
                     int32_t size, float* residual) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::EmbedKernel<Element>>(
          "the kernel of embeddings",
          {token_ids, static_cast<const Element*>(table), residual, size}, num_rows);
    });
  }

  absl::Status AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                       int32_t size) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::AddBiasKernel<Element>>(
          "the kernel of biases", {static_cast<Element*>(x), bias, size}, num_rows);
    });
  }

  absl::Status GatherRows(DeviceType type, const void* from, const int32_t* rows,
                          int32_t num_gathered, int32_t size, void* out) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::GatherRowsKernel<Element>>(
          "the kernel that gathers rows",
          {static_cast<const Element*>(from), rows, static_cast<Element*>(out), size},
          num_gathered);
    });
  }
  absl::Status GatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                               int32_t size, float* out) override {
    return Start<device::GatherRowsKernel<float>>("the kernel that gathers rows",
                                                  {from, rows, out, size}, num_gathered);
  }

  absl::Status AddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                          int32_t num_rows, int32_t size, float epsilon, void* out) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::AddRmsNormKernel<Element>>(
          "the kernel of RMS norm",
          {residual, static_cast<const Element*>(delta), weight, static_cast<Element*>(out), size,
           epsilon},
          num_rows);
    });
  }

  absl::Status RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::RopeAndWriteKvKernel<Element>>(
          "the kernel of RoPE",
          {static_cast<const Element*>(args.qkv), args.positions, args.slots, args.cosine,
           args.sine, static_cast<Element*>(args.q_out), static_cast<Element*>(args.k),
           static_cast<Element*>(args.v), args.shape.num_heads, args.shape.num_kv_heads,
           args.shape.head_dim},
          args.num_rows,
          device::RopeAndWriteKvKernel<Element>::NumBlocks(
              args.shape.num_heads, args.shape.num_kv_heads, args.shape.head_dim));
    });
  }

  absl::Status MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                      int32_t num_moves) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::MoveKvKernel<Element>>(
          "the kernel that moves keys",
          {moves, rope.cosine, rope.sine, static_cast<Element*>(rope.k),
           static_cast<Element*>(rope.v), rope.shape.num_kv_heads, rope.shape.head_dim},
          num_moves);
    });
  }

  absl::Status SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                            void* out) override {
    return device::WithType(type, [&](auto element) {
      using Element = decltype(element);
      return Start<device::SiluMultiplyKernel<Element>>(
          "the kernel of SwiGLU",
          {static_cast<const Element*>(gate_up), static_cast<Element*>(out), size}, num_rows,
          device::SiluMultiplyKernel<Element>::NumBlocks(size));
    });
  }

  absl::Status Sample(const DeviceSamplingArgs& args) override {
    const device::SamplingLaunch launch = device::LaunchOf(args);
    const auto start = [&]<class Kernel>(Kernel, int32_t grid_x, int32_t grid_y) {
      return Start<Kernel>("a kernel that chooses tokens", launch, grid_x, grid_y);
    };
    const int32_t choices = args.num_choices, splits = launch.num_splits;
    CHORUS_RETURN_IF_ERROR(start(device::RowStatisticsKernel(), args.num_rows, splits));
    if (args.combines) {
      CHORUS_RETURN_IF_ERROR(start(device::CombineLogitsKernel(), choices, splits));
    }
    if (args.adjusts) {
      CHORUS_RETURN_IF_ERROR(start(device::AdjustLogitsKernel(), choices, splits));
    }
    if (args.compares) CHORUS_RETURN_IF_ERROR(start(device::DivergenceKernel(), choices, splits));
    return start(device::ChooseTokensKernel(), choices, 1);
  }

 private:
  template <class Kernel>
  absl::Status Start(const char* what, const typename Kernel::Launch& launch, int32_t grid_x,
                     int32_t grid_y = 1) {
    return starter_.template Start<Kernel>(what, launch, grid_x, grid_y);
  }

  template <class Element, int kHeadDim>
  absl::Status StartAttention(const DeviceAttentionArgs& args) {
    constexpr const char* kWhat = "the kernel of segment attention";
    const int32_t num_kv_heads = args.shape.num_kv_heads;
    if (starter_.is_hopper()) {
      CHORUS_RETURN_IF_ERROR((starter_.template StartHopper<Element, kHeadDim>(kWhat, args)));
    } else {
      CHORUS_RETURN_IF_ERROR((Start<device::PrefillAttention<Element, kHeadDim>>(
          kWhat, device::LaunchOf<Element>(args, args.own), args.own.num_tiles, num_kv_heads)));
    }
    const auto fused = device::FusedLaunchOf<Element>(args);
    CHORUS_RETURN_IF_ERROR((Start<device::SpanAttention<Element, kHeadDim>>(
        kWhat, fused, args.fused.num_spans, num_kv_heads)));
    return Start<device::MergeSpans<Element, kHeadDim>>(kWhat, fused, args.fused.num_tiles,
                                                        num_kv_heads);
  }

  Starter starter_;
};

}  // namespace chorus
