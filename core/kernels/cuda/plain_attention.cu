#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/launch_of.h"
#include "core/kernels/cuda/plain_attention.h"
#include "core/kernels/cuda/segment_attention_cuda.h"

namespace chorus {
namespace {

template <class Element>
cudaError_t LaunchOfType(const DeviceAttentionArgs& args, const DeviceTiles& tiles,
                         cudaStream_t stream) {
  using Kernel = device::PlainAttention<Element>;
  const int32_t head_blocks = (args.shape.num_heads + Kernel::kWarps - 1) / Kernel::kWarps;
  return device::Start<Kernel>(device::LaunchOf<Element>(args, tiles),
                               dim3(tiles.num_tiles, head_blocks), stream);
}

}  // namespace

bool CudaPlainAttentionTakes(const AttentionShape& shape) {
  constexpr int32_t kLargest = device::PlainAttention<device::BFloat16>::kMaxHeadDim;
  return shape.head_dim > 0 && shape.head_dim % 2 == 0 && shape.head_dim <= kLargest &&
         shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0;
}

TileShape CudaPlainTileShape() {
  return {.tile_rows = 1, .key_block = 1, .span_keys = device::kPlainSpanKeys};
}

cudaError_t LaunchPlainAttention(const DeviceAttentionArgs& args, const DeviceTiles& tiles,
                                 cudaStream_t stream) {
  return args.type == DeviceType::kBFloat16 ? LaunchOfType<device::BFloat16>(args, tiles, stream)
                                          : LaunchOfType<device::Float16>(args, tiles, stream);
}

}  // namespace chorus
