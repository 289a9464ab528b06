#pragma once

#include <string>
#include <vector>

#include "core/kernels/cuda/device_host.h"

namespace chorus::test {

// "" or why no kernel can run on a GPU here.
std::string WhyNoGpu();

// Copies of a launch's arrays in the memory of the current CUDA device: what a kernel is given
// instead of the host's. Errors fail the test.
class GpuArrays {
 public:
  explicit GpuArrays(const std::vector<device::HostArray>& arrays);
  ~GpuArrays();
  GpuArrays(const GpuArrays&) = delete;
  GpuArrays& operator=(const GpuArrays&) = delete;

  // Where the device has what lies at `host`, the begin of one of the arrays; null for null.
  template <class T>
  T* At(T* host) const {
    return static_cast<T*>(Find(host));
  }

  // Waits for the device and copies what is writable back.
  void Download();

 private:
  struct Copy {
    device::HostArray host;
    void* on_device = nullptr;
  };
  void* Find(const void* host) const;

  std::vector<Copy> copies_;
};

}  // namespace chorus::test
