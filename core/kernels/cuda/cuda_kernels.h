#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_kernels.h"

namespace chorus {

// OK for cudaSuccess, else INTERNAL: `what` failed, and CUDA's name and text of the error.
absl::Status CudaStatus(cudaError_t error, const char* what);

// The kernels on one stream of one CUDA device. Used by one thread; the stream outlives it.
class CudaKernels : public DeviceKernels {
 public:
  CudaKernels(int32_t device_index, cudaStream_t stream)
      : device_index_(device_index), stream_(stream) {}

  bool TakesShape(const AttentionShape& shape) const override;
  TileShape OwnTileShape(const AttentionShape& shape) const override;
  TileShape FusedTileShape(const AttentionShape& shape) const override;
  int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) const override;
  absl::Status SegmentAttention(const DeviceAttentionArgs& args) override;
  absl::Status AddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                          int32_t num_rows, int32_t size, float epsilon, void* out) override;
  absl::Status RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) override;
  absl::Status MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                      int32_t num_moves) override;
  absl::Status SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                            void* out) override;

 private:
  const int32_t device_index_;
  const cudaStream_t stream_;
};

}  // namespace chorus
