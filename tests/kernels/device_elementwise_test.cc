// The elementwise device kernels' own source on the host back end, against those of the CPU.
#include <string>

#include "gtest/gtest.h"

#include "tests/kernels/device_elementwise_cases.h"

namespace chorus::device {
namespace {

struct HostBackend {
  static std::string WhyAbsent() { return ""; }
  template <class Start>
  static absl::Status Run(const Arrays& arrays, const Start& start) {
    return start(*KernelsOver(arrays), [](auto* host) { return host; });
  }
};

using Cases =
    testing::Types<ElementwiseCase<HostBackend, BFloat16>, ElementwiseCase<HostBackend, Float16>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceElementwiseTest, Cases);

}  // namespace
}  // namespace chorus::device
