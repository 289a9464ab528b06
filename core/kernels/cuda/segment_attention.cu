#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/prefill_attention.h"
#include "core/kernels/cuda/segment_attention_cuda.h"
#include "core/kernels/cuda/span_attention.h"

namespace chorus {
namespace {

using device::AttentionLaunch;
using device::Start;

// Keys of one span of a fused row: a constant, as a row's bits depend on it. 512 keys of one kv
// head are 256 KB at head_dim 128, several of which a multiprocessor has under way.
constexpr int32_t kFusedSpanKeys = 512;
constexpr int32_t kOwnSpanKeys = 1 << 20;  // rows of segments are not split

template <class Element, int kHeadDim>
cudaError_t LaunchAll(const DeviceAttentionArgs& args, cudaStream_t stream) {
  const int64_t num_states =
      int64_t{args.fused.num_spans} * args.shape.num_kv_heads * device::kSpanQueries;
  AttentionLaunch<Element> launch;
  launch.q = static_cast<const Element*>(args.q);
  launch.k = static_cast<const Element*>(args.k);
  launch.v = static_cast<const Element*>(args.v);
  launch.tiles = args.own.tiles;
  launch.spans = args.own.spans;
  launch.slot_table = args.slot_table;
  launch.scalings = args.scalings;
  launch.out = static_cast<Element*>(args.out);
  launch.log_sum_exp = args.log_sum_exp;
  launch.num_heads = args.shape.num_heads;
  launch.num_kv_heads = args.shape.num_kv_heads;
  launch.heads_per_kv_head = args.shape.num_heads / args.shape.num_kv_heads;
  launch.softmax_scale = args.shape.softmax_scale;
  launch.logits = args.logits;
  launch.logit_offsets = args.logit_offsets;
  launch.span_values = args.workspace;
  launch.span_max = args.workspace + num_states * kHeadDim;
  launch.span_sum = launch.span_max + num_states;
  const auto grid = [&](int32_t x) { return dim3(x, args.shape.num_kv_heads); };
  cudaError_t error =
      Start<device::PrefillAttention<Element, kHeadDim>>(launch, grid(args.own.num_tiles), stream);
  if (error != cudaSuccess) return error;
  launch.tiles = args.fused.tiles;
  launch.spans = args.fused.spans;
  error =
      Start<device::SpanAttention<Element, kHeadDim>>(launch, grid(args.fused.num_spans), stream);
  if (error != cudaSuccess) return error;
  return Start<device::MergeSpans<Element, kHeadDim>>(launch, grid(args.fused.num_tiles), stream);
}

template <class Element>
cudaError_t LaunchOfType(const DeviceAttentionArgs& args, cudaStream_t stream) {
  return args.shape.head_dim == 64 ? LaunchAll<Element, 64>(args, stream)
                                   : LaunchAll<Element, 128>(args, stream);
}

int32_t HeadsPerKvHead(const AttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

}  // namespace

bool CudaAttentionTakes(const AttentionShape& shape) {
  return (shape.head_dim == 64 || shape.head_dim == 128) && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0 && HeadsPerKvHead(shape) <= device::kSpanQueries;
}

TileShape CudaOwnTileShape(const AttentionShape& shape) {
  constexpr int32_t kQueries = device::PrefillAttention<device::BFloat16, 64>::kTileQueries;
  return {kQueries / HeadsPerKvHead(shape), device::kKeyBlock, kOwnSpanKeys};
}

TileShape CudaFusedTileShape(const AttentionShape& shape) {
  return {device::kSpanQueries / HeadsPerKvHead(shape), device::kKeyBlock, kFusedSpanKeys};
}

int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return int64_t{num_spans} * shape.num_kv_heads * device::kSpanQueries * (shape.head_dim + 2);
}

cudaError_t LaunchSegmentAttention(const DeviceAttentionArgs& args, cudaStream_t stream) {
  return args.type == DeviceType::kBFloat16 ? LaunchOfType<device::BFloat16>(args, stream)
                                          : LaunchOfType<device::Float16>(args, stream);
}

}  // namespace chorus
