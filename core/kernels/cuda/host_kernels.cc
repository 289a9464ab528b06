#include "core/kernels/cuda/host_kernels.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/launched_kernels.h"

namespace chorus {
namespace {

struct HostStarter {
  HostSubmit submit;
  HostArrays arrays;
  HostKernelsOptions options;

  template <class Kernel>
  absl::Status Start(const char* what, const typename Kernel::Launch& launch, int32_t grid_x,
                     int32_t grid_y) const {
    return submit(
        [what, launch, grid_x, grid_y, arrays_of = arrays, seed = options.seed]() -> absl::Status {
          const std::string wrong =
              device::RunOnHost<Kernel>(launch, grid_x, grid_y, arrays_of(), seed);
          return wrong.empty() ? absl::OkStatus()
                               : absl::InternalError(absl::StrCat(what, ": ", wrong));
        });
  }

  template <class Element, int kHeadDim>
  absl::Status StartHopper(const char* what, const DeviceAttentionArgs& args) const {
    const int32_t num_tiles = args.own.num_tiles, num_kv_heads = args.shape.num_kv_heads;
    const auto launch = device::LaunchOf<Element>(args, args.own);
    device::HopperLaunch<Element> hopper;
    static_cast<device::AttentionLaunch<Element>&>(hopper) = launch;
    const auto map_of = [&](const Element* slots) {
      return device::TensorMap{
          slots, {kHeadDim, num_kv_heads, args.num_slots}, device::kHopperBoxRows};
    };
    hopper.k_map = map_of(launch.k);
    hopper.v_map = map_of(launch.v);
    hopper.num_tiles = num_tiles;
    hopper.tiles_per_block = 1 + static_cast<int32_t>(options.seed % 3);
    const int32_t num_blocks = (num_tiles + hopper.tiles_per_block - 1) / hopper.tiles_per_block;
    return Start<device::HopperAttention<Element, kHeadDim>>(what, hopper, num_blocks,
                                                             num_kv_heads);
  }

  bool is_hopper() const { return options.is_hopper; }
  TileShape FusedTileShape(const AttentionShape& shape) const {
    TileShape tiles = device::FusedTileShapeOf(shape);
    if (options.has_short_spans) {
      tiles.span_keys = device::kKeyBlock;
      tiles.max_spans = 3;
    }
    return tiles;
  }
};

}  // namespace

std::unique_ptr<DeviceKernels> CreateHostKernels(HostSubmit submit, HostArrays arrays,
                                                 const HostKernelsOptions& options) {
  return std::make_unique<LaunchedKernels<HostStarter>>(
      HostStarter{std::move(submit), std::move(arrays), options});
}

}  // namespace chorus
