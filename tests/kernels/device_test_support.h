#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/host_kernels.h"

// What the tests of device kernels on the host back end share.
namespace chorus::device {

template <class Element>
std::vector<Element> RandomElements(int64_t size, float limit, std::mt19937& random) {
  std::uniform_real_distribution<float> uniform(-limit, limit);
  std::vector<Element> out(size);
  for (Element& element : out) element = FromFloat<Element>(uniform(random));
  return out;
}

template <class Element>
std::vector<float> ToFloats(const std::vector<Element>& elements) {
  std::vector<float> out;
  out.reserve(elements.size());
  for (Element element : elements) out.push_back(ToFloat(element));
  return out;
}

template <class T>
HostArray ReadOnly(const std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), false};
}
template <class T>
HostArray Writable(std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), true};
}

// The kernels on simulated blocks, which run as they are started and may touch `arrays`.
inline std::unique_ptr<DeviceKernels> KernelsOver(std::vector<HostArray> arrays,
                                                  const HostKernelsOptions& options = {}) {
  return CreateHostKernels([](const HostWork& work) { return work(); },
                           [arrays = std::move(arrays)] { return arrays; }, options);
}

template <class Element>
inline constexpr DeviceType kTypeOf =
    std::is_same_v<Element, BFloat16> ? DeviceType::kBFloat16 : DeviceType::kFloat16;

template <class T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Of attention over values of at most 1. Weights, which sum to 1, are rounded by at most 2^-8 of
// themselves (bfloat16) or 2^-11 (half), outputs by half of that; sums and exponentials in float32
// add less than 1e-4.
template <class Element>
float OutputTolerance() {
  const float unit = std::is_same_v<Element, BFloat16> ? 0x1p-8f : 0x1p-11f;
  return 1.5f * unit + 1e-4f;
}

}  // namespace chorus::device
