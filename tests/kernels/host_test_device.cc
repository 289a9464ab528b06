// Simulated thread blocks: every launch is checked for races and bounds.
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/test_device.h"

namespace chorus::test {

std::string WhyNoDevice() { return ""; }

absl::Status RunOnDevice(
    const std::vector<device::HostArray>& arrays, uint32_t seed,
    const std::function<absl::Status(DeviceKernels&, const Addresses& at)>& start) {
  return start(*device::KernelsOver(arrays, {.seed = seed}),
               Addresses([](const void* host) { return host; }));
}

}  // namespace chorus::test
