// The same kernels' sources on simulated thread blocks, for gpu_kernels_abi.cc.
#include <iterator>

#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/span_attention.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {
namespace {

using device::AttentionLaunch;
using device::HostArray;

enum Kind : int32_t { kAmpere, kHopper, kNumKinds };
constexpr const char* kNames[] = {"ampere", "hopper"};

int32_t HeadsPerKvHead(const AttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

template <class Element, int kHeadDim>
class HostLaunches {
 public:
  HostLaunches(const DeviceAttentionArgs& args, const ArgumentSizes& sizes)
      : args_(args), sizes_(sizes) {}

  std::string Run(int32_t kind) {
    using Ampere = device::PrefillAttention<Element, kHeadDim>;
    using Hopper = device::HopperAttention<Element, kHeadDim>;
    std::string error = kind == kHopper ? One<Hopper>(args_.own, args_.own.num_tiles)
                                        : One<Ampere>(args_.own, args_.own.num_tiles);
    if (error.empty()) {
      error = One<device::SpanAttention<Element, kHeadDim>>(args_.fused, args_.fused.num_spans);
    }
    if (error.empty()) {
      error = One<device::MergeSpans<Element, kHeadDim>>(args_.fused, args_.fused.num_tiles);
    }
    return error;
  }

 private:
  int64_t num_states() const {
    return int64_t{args_.fused.num_spans} * args_.shape.num_kv_heads * device::kSpanQueries;
  }

  AttentionLaunch<Element> LaunchOf(const DeviceTiles& tiles) const {
    float* span_max = args_.workspace + num_states() * kHeadDim;
    return {.q = static_cast<const Element*>(args_.q),
            .k = static_cast<const Element*>(args_.k),
            .v = static_cast<const Element*>(args_.v),
            .tiles = tiles.tiles,
            .spans = tiles.spans,
            .slot_table = args_.slot_table,
            .scalings = args_.scalings,
            .out = static_cast<Element*>(args_.out),
            .log_sum_exp = args_.log_sum_exp,
            .num_heads = args_.shape.num_heads,
            .num_kv_heads = args_.shape.num_kv_heads,
            .heads_per_kv_head = HeadsPerKvHead(args_.shape),
            .softmax_scale = args_.shape.softmax_scale,
            .head_dim = kHeadDim,
            .span_values = args_.workspace,
            .span_max = span_max,
            .span_sum = span_max + num_states()};
  }

  template <class Kernel>
  std::string One(const DeviceTiles& tiles, int grid_x) const {
    const int64_t row_size = int64_t{args_.shape.num_heads} * kHeadDim;
    const int64_t q_bytes = sizes_.num_rows * row_size * 2;
    const int64_t kv_bytes = sizes_.num_slots * args_.shape.num_kv_heads * kHeadDim * 2;
    const int64_t workspace_bytes = num_states() * (kHeadDim + 2) * 4;
    const HostArray arrays[] = {
        {args_.q, q_bytes, false},
        {args_.k, kv_bytes, false},
        {args_.v, kv_bytes, false},
        {tiles.tiles, tiles.num_tiles * int64_t{sizeof(Tile)}, false},
        {tiles.spans, tiles.num_spans * int64_t{sizeof(KeySpan)}, false},
        {args_.slot_table, sizes_.num_table_entries * 4, false},
        {args_.out, q_bytes, true},
        {args_.log_sum_exp, sizes_.num_rows * args_.shape.num_heads * 4, true},
        {args_.workspace, workspace_bytes, true}};
    typename Kernel::Launch launch;
    static_cast<AttentionLaunch<Element>&>(launch) = LaunchOf(tiles);
    if constexpr (requires { launch.k_map; }) {
      const int extents[] = {kHeadDim, args_.shape.num_kv_heads,
                             static_cast<int>(sizes_.num_slots)};
      launch.k_map = {args_.k, {extents[0], extents[1], extents[2]}, device::kHopperBoxRows};
      launch.v_map = {args_.v, {extents[0], extents[1], extents[2]}, device::kHopperBoxRows};
      launch.num_tiles = grid_x;
      launch.tiles_per_block = 2;  // any number gives the same bits
      grid_x = (grid_x + 1) / 2;
    }
    const device::HostLaunch host = {.grid_x = grid_x,
                                     .grid_y = args_.shape.num_kv_heads,
                                     .num_threads = Kernel::kThreads,
                                     .shared_bytes = Kernel::kSharedBytes,
                                     .arrays = arrays,
                                     .num_arrays = static_cast<int>(std::size(arrays))};
    return device::RunOnHost(host, [&] { Kernel::Run(launch, 0); });
  }

  const DeviceAttentionArgs& args_;
  const ArgumentSizes& sizes_;
};

template <class Element>
std::string LaunchOfType(int32_t kind, const DeviceAttentionArgs& args,
                         const ArgumentSizes& sizes) {
  return args.shape.head_dim == 64 ? HostLaunches<Element, 64>(args, sizes).Run(kind)
                                   : HostLaunches<Element, 128>(args, sizes).Run(kind);
}

}  // namespace

int32_t NumKinds() { return kNumKinds; }
const char* KindName(int32_t kind) { return kNames[kind]; }

bool Takes(int32_t, const AttentionShape& shape) {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && HeadsPerKvHead(shape) <= device::kSpanQueries;
}

TileShape OwnTiles(int32_t kind, const AttentionShape& shape) {
  using Ampere = device::PrefillAttention<device::BFloat16, 64>;
  using Hopper = device::HopperAttention<device::BFloat16, 64>;
  constexpr int32_t kSpanKeys = 1 << 20;
  const int32_t heads = HeadsPerKvHead(shape);
  return kind == kHopper ? TileShape{Hopper::kTileQueries / heads, Hopper::kKeyBlock, kSpanKeys}
                         : TileShape{Ampere::kTileQueries / heads, Ampere::kKeyBlock, kSpanKeys};
}

TileShape FusedTiles(const AttentionShape& shape) {
  return device::SpanTileShape(HeadsPerKvHead(shape));
}

int64_t WorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return int64_t{num_spans} * shape.num_kv_heads * device::kSpanQueries * (shape.head_dim + 2);
}

std::string Launch(int32_t kind, const DeviceAttentionArgs& args, const ArgumentSizes& sizes,
                   void*) {
  return args.type == DeviceType::kBFloat16 ? LaunchOfType<device::BFloat16>(kind, args, sizes)
                                            : LaunchOfType<device::Float16>(kind, args, sizes);
}

}  // namespace chorus::bench
