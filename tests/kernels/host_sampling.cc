// On simulated thread blocks.
#include <string>
#include <vector>

#include "tests/kernels/device_sampling_support.h"
#include "tests/kernels/device_test_support.h"

namespace chorus {

std::string WhyNoSamplingDevice() { return ""; }

absl::Status RunSampling(const std::vector<device::HostArray>& arrays, uint32_t seed,
                         const StartSampling& start) {
  return start(*device::KernelsOver(arrays, {.seed = seed}),
               [](const void* host) { return const_cast<void*>(host); });
}

}  // namespace chorus
