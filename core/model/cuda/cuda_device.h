#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/model/cuda/cuda_linear.h"
#include "core/model/cuda_module.h"
#include "core/model/device.h"

namespace chorus {

// The CUDA devices of this machine, at least one; uses none. FAILED_PRECONDITION, saying why and how
// to mend it: no NVIDIA driver, one that is too old, or no device.
absl::StatusOr<std::vector<CudaDeviceInfo>> ListCudaDevices();

// A CUDA device. Memory comes from torch's caching allocator, so that torch code in the same
// process and this one share what is there. Thread-safe.
class CudaDevice : public Device {
 public:
  // OUT_OF_RANGE: there is no such device. FAILED_PRECONDITION: as ListCudaDevices, or this one has a
  // problem. INTERNAL: CUDA fails.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(int32_t device_index);

  std::string name() const override;
  absl::StatusOr<int64_t> FreeBytes() const override;
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() override;

  LinearAlgorithms& linear_algorithms() { return algorithms_; }

 private:
  explicit CudaDevice(int32_t device_index) : device_index_(device_index) {}

  const int32_t device_index_;
  LinearAlgorithms algorithms_;
};

}  // namespace chorus
