// The CUDA kernels' own source on the host back end, against the reference.
#include <string>

#include "gtest/gtest.h"

#include "tests/kernels/device_attention_cases.h"

namespace chorus::device {
namespace {

// Every launch is checked for races and bounds.
template <bool kIsHopper>
struct HostBackend {
  static std::string WhyAbsent() { return ""; }
  template <class Element, int kHeadDim>
  static Result Run(const Step<Element>& step, uint32_t seed) {
    const HostKernelsOptions options = {
        .is_hopper = kIsHopper, .has_short_spans = true, .seed = seed};
    StepMemory<Element> memory(step, *KernelsOver({}, options));
    EXPECT_EQ(KernelsOver(memory.Arrays(), options)->SegmentAttention(memory.Args()),
              absl::OkStatus());
    return memory.result();
  }
};
using Backends = testing::Types<HostBackend<false>, HostBackend<true>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceAttentionTest, Backends);

}  // namespace
}  // namespace chorus::device
