#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/model/cuda/cuda_linear.h"
#include "core/model/device.h"

namespace chorus {

// Number of CUDA devices. FAILED_PRECONDITION, saying why and how to mend it: no NVIDIA driver, one
// that is too old, no device, or none that can be used.
absl::StatusOr<int32_t> CountCudaDevices();

// A CUDA device. Memory comes from torch's caching allocator, so that torch code in the same
// process and this one share what is there. Thread-safe.
class CudaDevice : public Device {
 public:
  // OUT_OF_RANGE: there is no such device. FAILED_PRECONDITION: the kernels are not made for one so
  // old. INTERNAL: CUDA fails.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(int32_t device_index);

  std::string name() const override;
  absl::StatusOr<int64_t> FreeBytes() const override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() override;

  const std::string& model() const { return model_; }  // "NVIDIA H100 80GB HBM3"
  int64_t total_bytes() const { return total_bytes_; }
  LinearAlgorithms& linear_algorithms() { return algorithms_; }

 private:
  CudaDevice(int32_t device_index, std::string model, int64_t total_bytes)
      : device_index_(device_index), model_(std::move(model)), total_bytes_(total_bytes) {}

  const int32_t device_index_;
  const std::string model_;
  const int64_t total_bytes_;
  LinearAlgorithms algorithms_;
};

}  // namespace chorus
