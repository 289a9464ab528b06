#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/kernels/cuda/cuda_kernels.h"
#include "core/model/cuda/cuda_linear.h"
#include "core/model/device.h"

namespace chorus {

// Page-locked host memory, from and to which the device copies by itself.
class PinnedMemory {
 public:
  static absl::StatusOr<std::unique_ptr<PinnedMemory>> Allocate(int64_t num_bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  char* data() const { return data_; }

 private:
  explicit PinnedMemory(char* data) : data_(data) {}

  char* const data_;
};

// Two buffers that uploads go through: one is filled while the device still reads the other.
class UploadBuffers {
 public:
  static absl::StatusOr<std::unique_ptr<UploadBuffers>> Create();
  ~UploadBuffers();  // REQUIRES: the stream has done its work
  UploadBuffers(const UploadBuffers&) = delete;
  UploadBuffers& operator=(const UploadBuffers&) = delete;

  // Copies in order on `stream`; `from` may be reused at once.
  absl::Status Upload(void* to, const void* from, int64_t num_bytes, cudaStream_t stream);

 private:
  struct Buffer {
    std::unique_ptr<PinnedMemory> memory;
    cudaEvent_t read = nullptr;  // the device has read what was filled in last
  };

  UploadBuffers() = default;
  // Makes the other buffer the one to be filled, once the device has read it.
  absl::Status TakeOther(cudaStream_t stream);

  Buffer buffers_[2];
  int current_ = 0;
  int64_t used_bytes_ = 0;  // of the current buffer
};

// A stream of one CUDA device with what belongs to it: matrix products with their workspace, and
// pinned memory. Used by one thread at a time. The device outlives it.
class CudaStream : public DeviceStream {
 public:
  // `workspace`: LinearAlgorithms::kWorkspaceBytes.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(
      int32_t device_index, LinearAlgorithms* algorithms, std::unique_ptr<DeviceMemory> workspace);
  ~CudaStream() override;  // waits until all work is done

  DeviceKernels& kernels() override { return *kernels_; }
  absl::Status Linear(const DeviceLinearArgs& args) override;
  absl::Status Upload(void* to, const void* from, int64_t num_bytes) override;
  absl::Status Download(void* to, const void* from, int64_t num_bytes) override;
  absl::Status Wait() override;
  absl::Status BeginRecording() override;
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndRecording() override;
  absl::Status Launch(DeviceGraph& graph) override;

 private:
  CudaStream(int32_t device_index, CudaAttentionKind kind, cudaStream_t stream,
             std::unique_ptr<DeviceMemory> workspace)
      : device_index_(device_index),
        stream_(stream),
        workspace_(std::move(workspace)),
        kernels_(CreateCudaKernels(device_index, kind, stream)) {}

  // CUDA's calls mean the thread's current device.
  absl::Status MakeCurrent() const;
  // INTERNAL while recording.
  absl::Status CheckNotRecording(const char* what) const;

  const int32_t device_index_;
  const cudaStream_t stream_;
  const std::unique_ptr<DeviceMemory> workspace_;
  const std::unique_ptr<DeviceKernels> kernels_;
  std::unique_ptr<CudaLinear> linear_;
  std::unique_ptr<UploadBuffers> uploads_;
  std::unique_ptr<PinnedMemory> downloads_;
  bool is_recording_ = false;
};

}  // namespace chorus
