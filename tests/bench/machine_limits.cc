#include "tests/bench/machine_limits.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/machine_limits.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace chorus {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::CappedTag<float, 16>;

}  // namespace

float SumFloatsTarget(const float* data, int64_t size) {
  const FloatTag d;
  constexpr int64_t kLanes = hn::MaxLanes(FloatTag());
  constexpr int kChains = 8;
  hn::Vec<FloatTag> sums[kChains];
  for (auto& sum : sums) sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + kChains * kLanes <= size; i += kChains * kLanes) {
    hwy::Prefetch(data + i + 1024);
    hwy::Prefetch(data + i + 1024 + kChains * kLanes / 2);
#pragma GCC unroll 8
    for (int c = 0; c < kChains; ++c) {
      sums[c] = hn::Add(sums[c], hn::LoadU(d, data + i + c * kLanes));
    }
  }
  for (int c = 1; c < kChains; ++c) sums[0] = hn::Add(sums[0], sums[c]);
  float total = hn::GetLane(hn::SumOfLanes(d, sums[0]));
  for (; i < size; ++i) total += data[i];
  return total;
}

double MultiplyAddManyTarget() {
  const FloatTag d;
  constexpr int kChains = 12;
  constexpr int kSteps = 20000;
  hn::Vec<FloatTag> sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = hn::Set(d, static_cast<float>(c));
  const auto factor = hn::Set(d, 0.5f);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = hn::MulAdd(sums[c], factor, factor);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = hn::Add(sums[0], sums[c]);
  // All chains tend to 1: a use of the result that the compiler cannot foresee.
  const bool converged = hn::GetLane(sums[0]) == static_cast<float>(kChains);
  return converged ? 2.0 * kSteps * kChains * hn::MaxLanes(d) : 0.0;
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {

HWY_EXPORT(SumFloatsTarget);
HWY_EXPORT(MultiplyAddManyTarget);

float SumFloats(const float* data, int64_t size) {
  return HWY_DYNAMIC_DISPATCH(SumFloatsTarget)(data, size);
}
double MultiplyAddMany() { return HWY_DYNAMIC_DISPATCH(MultiplyAddManyTarget)(); }

}  // namespace chorus
#endif  // HWY_ONCE
