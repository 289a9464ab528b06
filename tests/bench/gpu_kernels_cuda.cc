// The CUDA kernels, for gpu_kernels_abi.cc.
#include <cuda_runtime_api.h>

#include "core/kernels/cuda/segment_attention_cuda.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {

namespace {

constexpr const char* kNames[] = {"ampere", "hopper"};

CudaAttentionKind KindOf(int32_t kind) { return static_cast<CudaAttentionKind>(kind); }

}  // namespace

// Any device can run the first; what a Hopper runs it with, too, is measured with both.
int32_t NumKinds() {
  int device = 0;
  CudaAttentionKind kind;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  if (FindCudaAttentionKind(device, kind) != cudaSuccess) return 1;
  return kind == CudaAttentionKind::kHopper ? 2 : 1;
}
const char* KindName(int32_t kind) { return kNames[kind]; }

bool Takes(int32_t, const AttentionShape& shape) { return CudaAttentionTakes(shape); }
TileShape OwnTiles(int32_t kind, const AttentionShape& shape) {
  return CudaOwnTileShape(shape, KindOf(kind));
}
TileShape FusedTiles(const AttentionShape& shape) { return CudaFusedTileShape(shape); }
int64_t WorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return AttentionWorkspaceFloats(shape, num_spans);
}

std::string Launch(int32_t kind, const DeviceAttentionArgs& args, const ArgumentSizes&,
                   void* stream) {
  const cudaError_t error =
      LaunchSegmentAttention(args, KindOf(kind), static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace chorus::bench
