#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_kernels.h"
#include "core/kernels/cuda/segment_attention_cuda.h"

namespace chorus {

// OK for cudaSuccess, else `what` failed, with CUDA's name and text of the error:
// RESOURCE_EXHAUSTED for memory, UNAVAILABLE if the process can use the device no more, INTERNAL
// for anything else. Clears the error, so that it does not stand as the next kernel's.
absl::Status CudaStatus(cudaError_t error, const char* what);

// The kernels on one stream of one CUDA device. Used by one thread; the stream outlives it.
class CudaKernels : public DeviceKernels {
 public:
  // `kind`: the device's, by FindCudaAttentionKind.
  CudaKernels(int32_t device_index, CudaAttentionKind kind, cudaStream_t stream)
      : device_index_(device_index), kind_(kind), stream_(stream) {}

  bool TakesShape(const AttentionShape& shape) const override;
  TileShape OwnTileShape(const AttentionShape& shape) const override;
  TileShape FusedTileShape(const AttentionShape& shape) const override;
  int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) const override;
  absl::Status SegmentAttention(const DeviceAttentionArgs& args) override;
  bool TakesPlainShape(const AttentionShape& shape) const override;
  TileShape PlainTileShape() const override;
  absl::Status PlainAttention(const DeviceAttentionArgs& args, const DeviceTiles& tiles) override;
  absl::Status ReduceProbes(const DeviceProbes& probes, int32_t layer) override;
  absl::Status MeanProbes(const DeviceProbes& probes) override;
  absl::Status Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows, const void* table,
                     int32_t size, float* residual) override;
  absl::Status AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                       int32_t size) override;
  absl::Status GatherRows(DeviceType type, const void* from, const int32_t* rows,
                          int32_t num_gathered, int32_t size, void* out) override;
  absl::Status GatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                               int32_t size, float* out) override;
  absl::Status AddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                          int32_t num_rows, int32_t size, float epsilon, void* out) override;
  absl::Status RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) override;
  absl::Status MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                      int32_t num_moves) override;
  absl::Status SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                            void* out) override;
  int64_t SamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices, int32_t num_changed_rows,
                                 int32_t vocab_size) const override;
  absl::Status Sample(const DeviceSamplingArgs& args) override;

 private:
  const int32_t device_index_;
  const CudaAttentionKind kind_;
  const cudaStream_t stream_;
};

}  // namespace chorus
