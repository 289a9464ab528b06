#include "core/kernels/cuda/cuda_kernels.h"

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/elementwise_cuda.h"
#include "core/kernels/cuda/segment_attention_cuda.h"

namespace chorus {
namespace {

// A kernel can only be started while its stream's device is the thread's current one.
template <typename Launch>
absl::Status Start(int32_t device_index, const char* kernel, const Launch& launch) {
  CHORUS_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_index), "cudaSetDevice"));
  return CudaStatus(launch(), kernel);
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, " failed: ", cudaGetErrorName(error), ", ",
                                          cudaGetErrorString(error)));
}

bool CudaKernels::TakesShape(const AttentionShape& shape) const {
  return CudaAttentionTakes(shape);
}

TileShape CudaKernels::OwnTileShape(const AttentionShape& shape) const {
  return CudaOwnTileShape(shape);
}

TileShape CudaKernels::FusedTileShape(const AttentionShape& shape) const {
  return CudaFusedTileShape(shape);
}

int64_t CudaKernels::AttentionWorkspaceFloats(const AttentionShape& shape,
                                              int32_t num_spans) const {
  return chorus::AttentionWorkspaceFloats(shape, num_spans);
}

absl::Status CudaKernels::SegmentAttention(const DeviceAttentionArgs& args) {
  return Start(device_index_, "the kernel of segment attention",
               [&] { return LaunchSegmentAttention(args, stream_); });
}

absl::Status CudaKernels::AddRmsNorm(DeviceType type, float* residual, const void* delta,
                                     const float* weight, int32_t num_rows, int32_t size,
                                     float epsilon, void* out) {
  return Start(device_index_, "the kernel of RMS norm", [&] {
    return LaunchAddRmsNorm(type, residual, delta, weight, num_rows, size, epsilon, out, stream_);
  });
}

absl::Status CudaKernels::RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) {
  return Start(device_index_, "the kernel of RoPE",
               [&] { return LaunchRopeAndWriteKv(type, args, stream_); });
}

absl::Status CudaKernels::MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                                 int32_t num_moves) {
  return Start(device_index_, "the kernel that moves keys",
               [&] { return LaunchMoveKv(type, rope, moves, num_moves, stream_); });
}

absl::Status CudaKernels::SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows,
                                       int32_t size, void* out) {
  return Start(device_index_, "the kernel of SwiGLU", [&] {
    return LaunchSiluMultiply(type, gate_up, num_rows, size, out, stream_);
  });
}

}  // namespace chorus
