#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/device_kernels.h"

// The device that a test runs kernels on is what it is linked with: simulated thread blocks
// (host_test_device.cc) or a GPU (gpu_test_device.cc).
namespace chorus::test {

// "" or why there is no device here.
std::string WhyNoDevice();

// Where the device has what begins at a host address; null for null.
class Addresses {
 public:
  explicit Addresses(std::function<const void*(const void*)> find) : find_(std::move(find)) {}
  template <class T>
  T* operator()(T* host) const {
    return const_cast<T*>(static_cast<const T*>(find_(host)));
  }

 private:
  std::function<const void*(const void*)> find_;
};

// start(kernels, at), with `arrays` on the device and back. `seed`: the order in which simulated
// threads advance.
absl::Status RunOnDevice(
    const std::vector<device::HostArray>& arrays, uint32_t seed,
    const std::function<absl::Status(DeviceKernels&, const Addresses& at)>& start);

// Skipped where there is no device.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoDevice(); !why.empty()) GTEST_SKIP() << why;
  }
};

}  // namespace chorus::test
