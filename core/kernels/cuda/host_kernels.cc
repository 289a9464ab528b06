#include "core/kernels/cuda/host_kernels.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/launched_kernels.h"
#include "core/kernels/cuda/prefill_attention.h"

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
  absl::Status StartOwn(const char* what, const device::AttentionLaunch<Element>& launch,
                        int32_t num_tiles) const {
    if (!options.is_hopper) {
      return Start<device::PrefillAttention<Element, kHeadDim>>(what, launch, num_tiles,
                                                                launch.num_kv_heads);
    }
    device::HopperLaunch<Element> hopper;
    static_cast<device::AttentionLaunch<Element>&>(hopper) = launch;
    hopper.k_map = MapOf<kHeadDim>(launch.k, launch.num_kv_heads);
    hopper.v_map = MapOf<kHeadDim>(launch.v, launch.num_kv_heads);
    hopper.has_maps = options.seed % 4 != 0;
    hopper.num_tiles = num_tiles;
    hopper.tiles_per_block = 1 + static_cast<int32_t>(options.seed % 3);
    const int32_t num_blocks = (num_tiles + hopper.tiles_per_block - 1) / hopper.tiles_per_block;
    return Start<device::HopperAttention<Element, kHeadDim>>(what, hopper, num_blocks,
                                                             launch.num_kv_heads);
  }

  // Of as many slots as the array that they lie in has room for.
  template <int kHeadDim, class Element>
  device::TensorMap MapOf(const Element* slots, int32_t num_kv_heads) const {
    int64_t num_bytes = 0;
    for (const device::HostArray& array : arrays()) {
      const auto offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(slots) -
                                               reinterpret_cast<uintptr_t>(array.data));
      if (offset >= 0 && offset < array.size) num_bytes = array.size - offset;
    }
    const int64_t slot_bytes = int64_t{2} * kHeadDim * num_kv_heads;
    return {slots,
            {kHeadDim, num_kv_heads, static_cast<int>(num_bytes / slot_bytes)},
            device::kHopperBoxRows};
  }

  TileShape OwnTileShape(const AttentionShape& shape) const {
    using device::BFloat16;
    return options.is_hopper
               ? device::OwnTileShapeOf<device::HopperAttention<BFloat16, 64>>(shape)
               : device::OwnTileShapeOf<device::PrefillAttention<BFloat16, 64>>(shape);
  }
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
