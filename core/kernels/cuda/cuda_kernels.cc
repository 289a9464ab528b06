#include "core/kernels/cuda/cuda_kernels.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/attention_probes_cuda.h"
#include "core/kernels/cuda/elementwise_cuda.h"
#include "core/kernels/cuda/sampling_cuda.h"
#include "core/kernels/cuda/segment_attention_cuda.h"

namespace chorus {
namespace {

// A kernel can only be started while its stream's device is the thread's current one.
template <typename Launch>
absl::Status Start(int32_t device_index, const char* kernel, const Launch& launch) {
  CHORUS_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_index), "cudaSetDevice"));
  return CudaStatus(launch(), kernel);
}

// Errors after which, as driver_types.h says, the process can do nothing more on the device.
bool LosesDevice(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  const std::string text =
      absl::StrCat(what, " failed: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error));
  if (LosesDevice(error)) {
    return absl::UnavailableError(
        absl::StrCat("the GPU is lost to this process until the server is started again: ", text));
  }
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

bool CudaKernels::TakesShape(const AttentionShape& shape) const {
  return CudaAttentionTakes(shape);
}

TileShape CudaKernels::OwnTileShape(const AttentionShape& shape) const {
  return CudaOwnTileShape(shape, kind_);
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
               [&] { return LaunchSegmentAttention(args, kind_, stream_); });
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
  return Start(device_index_, "the kernel of SwiGLU",
               [&] { return LaunchSiluMultiply(type, gate_up, num_rows, size, out, stream_); });
}

bool CudaKernels::TakesPlainShape(const AttentionShape& shape) const {
  return CudaPlainAttentionTakes(shape);
}

TileShape CudaKernels::PlainTileShape() const { return CudaPlainTileShape(); }

absl::Status CudaKernels::PlainAttention(const DeviceAttentionArgs& args,
                                         const DeviceTiles& tiles) {
  return Start(device_index_, "the kernel of plain attention",
               [&] { return LaunchPlainAttention(args, tiles, stream_); });
}

absl::Status CudaKernels::ReduceProbes(const DeviceProbes& probes, int32_t layer) {
  return Start(device_index_, "the kernel of probes",
               [&] { return LaunchReduceProbes(probes, layer, stream_); });
}

absl::Status CudaKernels::MeanProbes(const DeviceProbes& probes) {
  return Start(device_index_, "the kernel of probes' means",
               [&] { return LaunchMeanProbes(probes, stream_); });
}

absl::Status CudaKernels::Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows,
                                const void* table, int32_t size, float* residual) {
  return Start(device_index_, "the kernel of embeddings", [&] {
    return LaunchEmbed(type, token_ids, num_rows, table, size, residual, stream_);
  });
}

absl::Status CudaKernels::AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                                  int32_t size) {
  return Start(device_index_, "the kernel of biases",
               [&] { return LaunchAddBias(type, x, bias, num_rows, size, stream_); });
}

absl::Status CudaKernels::GatherRows(DeviceType type, const void* from, const int32_t* rows,
                                     int32_t num_gathered, int32_t size, void* out) {
  return Start(device_index_, "the kernel that gathers rows", [&] {
    return LaunchGatherRows(type, from, rows, num_gathered, size, out, stream_);
  });
}

absl::Status CudaKernels::GatherFloatRows(const float* from, const int32_t* rows,
                                          int32_t num_gathered, int32_t size, float* out) {
  return Start(device_index_, "the kernel that gathers rows",
               [&] { return LaunchGatherFloatRows(from, rows, num_gathered, size, out, stream_); });
}

int64_t CudaKernels::SamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices,
                                            int32_t num_changed_rows, int32_t vocab_size) const {
  return CudaSamplingWorkspaceBytes(num_rows, num_choices, num_changed_rows, vocab_size);
}

absl::Status CudaKernels::Sample(const DeviceSamplingArgs& args) {
  return Start(device_index_, "a kernel that chooses tokens",
               [&] { return LaunchSampling(args, stream_); });
}

}  // namespace chorus
