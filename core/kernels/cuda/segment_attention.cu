#include "core/kernels/cuda/hopper_attention.h"
#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/launch_of.h"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/segment_attention_cuda.h"
#include "core/kernels/cuda/span_attention.h"
#include "core/kernels/cuda/start_hopper.h"

namespace chorus {
namespace {

using device::AttentionLaunch;
using device::Start;

constexpr int32_t kOwnSpanKeys = 1 << 20;  // rows of segments are not split

template <class Element, int kHeadDim>
cudaError_t LaunchAll(const DeviceAttentionArgs& args, CudaAttentionKind kind, cudaStream_t stream) {
  const int64_t num_states =
      int64_t{args.fused.num_spans} * args.shape.num_kv_heads * device::kSpanQueries;
  AttentionLaunch<Element> launch = device::LaunchOf<Element>(args, args.own);
  launch.span_values = args.workspace;
  launch.span_max = args.workspace + num_states * kHeadDim;
  launch.span_sum = launch.span_max + num_states;
  const auto grid = [&](int32_t x) { return dim3(x, args.shape.num_kv_heads); };
  const int32_t num_own = args.own.num_tiles;
  cudaError_t error =
      kind == CudaAttentionKind::kHopper
          ? device::StartHopperAttention<Element, kHeadDim>(launch, args.own, args.num_slots, stream)
          : Start<device::PrefillAttention<Element, kHeadDim>>(launch, grid(num_own), stream);
  if (error != cudaSuccess) return error;
  launch.tiles = args.fused.tiles;
  launch.spans = args.fused.spans;
  error =
      Start<device::SpanAttention<Element, kHeadDim>>(launch, grid(args.fused.num_spans), stream);
  if (error != cudaSuccess) return error;
  return Start<device::MergeSpans<Element, kHeadDim>>(launch, grid(args.fused.num_tiles), stream);
}

template <class Element>
cudaError_t LaunchOfType(const DeviceAttentionArgs& args, CudaAttentionKind kind,
                         cudaStream_t stream) {
  return args.shape.head_dim == 64 ? LaunchAll<Element, 64>(args, kind, stream)
                                   : LaunchAll<Element, 128>(args, kind, stream);
}

int32_t HeadsPerKvHead(const AttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

}  // namespace

bool CudaAttentionTakes(const AttentionShape& shape) {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && HeadsPerKvHead(shape) <= device::kSpanQueries;
}

cudaError_t FindCudaAttentionKind(int device, CudaAttentionKind& kind) {
  int major = 0, minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const bool is_hopper = major == 9 && minor == 0;  // sm_90a runs there and nowhere else
  kind = is_hopper ? CudaAttentionKind::kHopper : CudaAttentionKind::kAmpere;
  return error;
}

TileShape CudaOwnTileShape(const AttentionShape& shape, CudaAttentionKind kind) {
  using Ampere = device::PrefillAttention<device::BFloat16, 64>;
  using Hopper = device::HopperAttention<device::BFloat16, 64>;
  const int32_t heads = HeadsPerKvHead(shape);
  return kind == CudaAttentionKind::kHopper
             ? TileShape{Hopper::kTileQueries / heads, Hopper::kKeyBlock, kOwnSpanKeys}
             : TileShape{Ampere::kTileQueries / heads, Ampere::kKeyBlock, kOwnSpanKeys};
}

TileShape CudaFusedTileShape(const AttentionShape& shape) {
  return device::SpanTileShape(HeadsPerKvHead(shape));
}

int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return int64_t{num_spans} * shape.num_kv_heads * device::kSpanQueries * (shape.head_dim + 2);
}

cudaError_t LaunchSegmentAttention(const DeviceAttentionArgs& args, CudaAttentionKind kind,
                                   cudaStream_t stream) {
  return args.type == DeviceType::kBFloat16 ? LaunchOfType<device::BFloat16>(args, kind, stream)
                                          : LaunchOfType<device::Float16>(args, kind, stream);
}

}  // namespace chorus
