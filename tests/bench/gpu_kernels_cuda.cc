// The CUDA kernels, for gpu_kernels_abi.cc.
#include <cuda_runtime_api.h>

#include "core/kernels/cuda/segment_attention_cuda.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {

int32_t NumKinds() { return 1; }
const char* KindName(int32_t) { return "ampere"; }

bool Takes(int32_t, const AttentionShape& shape) { return CudaAttentionTakes(shape); }
TileShape OwnTiles(int32_t, const AttentionShape& shape) { return CudaOwnTileShape(shape); }
TileShape FusedTiles(const AttentionShape& shape) { return CudaFusedTileShape(shape); }
int64_t WorkspaceFloats(const AttentionShape& shape, int32_t num_spans) {
  return AttentionWorkspaceFloats(shape, num_spans);
}

std::string Launch(int32_t, const DeviceAttentionArgs& args, const ArgumentSizes&, void* stream) {
  const cudaError_t error = LaunchSegmentAttention(args, static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace chorus::bench
