#include "core/model/logit_math.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

// clang-format off: foreach_target comes first.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/model/logit_math.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace chorus {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Loads `count` floats from x, the rest of the lanes minus infinity.
HWY_INLINE V LoadTail(D d, const float* x, size_t count) {
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  const size_t width = hn::Lanes(d);
  for (size_t i = 0; i < width; ++i) lanes[i] = i < count ? x[i] : kMinusInfinity;
  return hn::Load(d, lanes);
}

HWY_INLINE void StoreTail(D d, V v, float* out, size_t count) {
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, lanes);
  std::copy_n(lanes, count, out);
}

// exp with minus infinity and everything below the smallest normal giving 0.
HWY_INLINE V ExpOrZero(D d, V x) {
  const auto is_small = hn::Lt(x, hn::Set(d, -87.0f));
  return hn::IfThenZeroElse(is_small, hn::Exp(d, hn::IfThenZeroElse(is_small, x)));
}

float MaxValueImpl(const float* x, int32_t count) {
  const D d;
  const size_t width = hn::Lanes(d);
  const size_t size = static_cast<size_t>(count);
  V largest = hn::Set(d, kMinusInfinity);
  auto has_nan = hn::IsNaN(largest);
  size_t i = 0;
  for (; i + width <= size; i += width) {
    const V v = hn::LoadU(d, x + i);
    has_nan = hn::Or(has_nan, hn::IsNaN(v));
    largest = hn::Max(largest, v);
  }
  const V tail = LoadTail(d, x + i, size - i);
  has_nan = hn::Or(has_nan, hn::IsNaN(tail));
  if (!hn::AllFalse(d, has_nan)) return std::numeric_limits<float>::quiet_NaN();
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(largest, tail)));
}

// The sum of terms of columns [0, size), float32 within blocks, double over them. `whole(i)`: the
// terms of a vector of columns from i on; `tail(i)`: of those from i to the end, less than a vector.
template <typename Whole, typename Tail>
double SumInBlocks(size_t size, const Whole& whole, const Tail& tail) {
  const D d;
  const size_t width = hn::Lanes(d);
  const size_t block = 32 * width;
  double sum = 0.0;
  size_t i = 0;
  while (i + width <= size) {
    V partial = hn::Zero(d);
    const size_t end = std::min(size, i + block);
    for (; i + width <= end; i += width) partial = hn::Add(partial, whole(i));
    sum += hn::GetLane(hn::SumOfLanes(d, partial));
  }
  return i == size ? sum : sum + hn::GetLane(hn::SumOfLanes(d, tail(i)));
}

// sum exp(x - shift).
double SumExpImpl(const float* x, int32_t count, float shift) {
  const D d;
  const V shifts = hn::Set(d, shift);
  const size_t size = static_cast<size_t>(count);
  return SumInBlocks(
      size,
      [&](size_t i) HWY_ATTR { return ExpOrZero(d, hn::Sub(hn::LoadU(d, x + i), shifts)); },
      [&](size_t i) HWY_ATTR {
        return ExpOrZero(d, hn::Sub(LoadTail(d, x + i, size - i), shifts));
      });
}

void ExpShiftedImpl(const float* x, int32_t count, float shift, float scale, float* out) {
  const D d;
  const size_t width = hn::Lanes(d);
  const size_t size = static_cast<size_t>(count);
  const V shifts = hn::Set(d, shift);
  const V scales = hn::Set(d, scale);
  size_t i = 0;
  for (; i + width <= size; i += width) {
    const V v = hn::Mul(hn::Sub(hn::LoadU(d, x + i), shifts), scales);
    hn::StoreU(ExpOrZero(d, v), d, out + i);
  }
  const V v = hn::Mul(hn::Sub(LoadTail(d, x + i, size - i), shifts), scales);
  StoreTail(d, ExpOrZero(d, v), out + i, size - i);
}

// One vector of columns: the largest term is taken out, so the sum is in [1, num_rows].
template <typename LoadRow>
HWY_INLINE V LogSumExpColumns(D d, size_t num_rows, const LoadRow& load) {
  V largest = load(0);
  for (size_t r = 1; r < num_rows; ++r) largest = hn::Max(largest, load(r));
  const V lowest = hn::Set(d, std::numeric_limits<float>::lowest());
  const V shift = hn::Max(largest, lowest);  // no -inf - -inf
  V sum = hn::Zero(d);
  for (size_t r = 0; r < num_rows; ++r) sum = hn::Add(sum, ExpOrZero(d, hn::Sub(load(r), shift)));
  const auto is_empty = hn::Eq(sum, hn::Zero(d));
  const V log_sum = hn::Log(d, hn::IfThenElse(is_empty, hn::Set(d, 1.0f), sum));
  return hn::IfThenElse(is_empty, hn::Set(d, kMinusInfinity), hn::Add(shift, log_sum));
}

void LogSumExpOfRowsImpl(const float* const* rows, const float* shifts, size_t num_rows,
                         int32_t count, float* out) {
  const D d;
  const size_t width = hn::Lanes(d);
  const size_t size = static_cast<size_t>(count);
  size_t i = 0;
  for (; i + width <= size; i += width) {
    const V v = LogSumExpColumns(d, num_rows, [&](size_t r) HWY_ATTR {
      return hn::Add(hn::LoadU(d, rows[r] + i), hn::Set(d, shifts[r]));
    });
    hn::StoreU(v, d, out + i);
  }
  if (i == size) return;
  const V v = LogSumExpColumns(d, num_rows, [&](size_t r) HWY_ATTR {
    return hn::Add(LoadTail(d, rows[r] + i, size - i), hn::Set(d, shifts[r]));
  });
  StoreTail(d, v, out + i, size - i);
}

// One vector of columns: sum_r e_r y_r - M ln(M / n), where y are log-probabilities, e = exp(y), and
// M is the sum of the e.
template <typename LoadRow>
HWY_INLINE V DivergenceOfColumns(D d, size_t num_rows, V log_num_rows, const LoadRow& load) {
  const V zero = hn::Zero(d);
  V mass = zero, weighted = zero;
  for (size_t r = 0; r < num_rows; ++r) {
    const V y = load(r);
    const V e = ExpOrZero(d, y);
    mass = hn::Add(mass, e);
    weighted = hn::Add(weighted, hn::IfThenZeroElse(hn::Eq(e, zero), hn::Mul(e, y)));
  }
  const auto is_empty = hn::Eq(mass, zero);
  const V log_mean =
      hn::Sub(hn::Log(d, hn::IfThenElse(is_empty, hn::Set(d, 1.0f), mass)), log_num_rows);
  return hn::NegMulAdd(mass, log_mean, weighted);
}

double SumOfDivergencesImpl(const float* const* rows, const float* log_sums, size_t num_rows,
                            int32_t count) {
  const D d;
  const size_t size = static_cast<size_t>(count);
  const V log_num_rows = hn::Set(d, static_cast<float>(std::log(static_cast<double>(num_rows))));
  return SumInBlocks(
      size,
      [&](size_t i) HWY_ATTR {
        return DivergenceOfColumns(d, num_rows, log_num_rows, [&](size_t r) HWY_ATTR {
          return hn::Sub(hn::LoadU(d, rows[r] + i), hn::Set(d, log_sums[r]));
        });
      },
      [&](size_t i) HWY_ATTR {
        return DivergenceOfColumns(d, num_rows, log_num_rows, [&](size_t r) HWY_ATTR {
          return hn::Sub(LoadTail(d, rows[r] + i, size - i), hn::Set(d, log_sums[r]));
        });
      });
}

}  // namespace HWY_NAMESPACE
}  // namespace chorus
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace chorus {

HWY_EXPORT(MaxValueImpl);
HWY_EXPORT(SumExpImpl);
HWY_EXPORT(ExpShiftedImpl);
HWY_EXPORT(LogSumExpOfRowsImpl);
HWY_EXPORT(SumOfDivergencesImpl);

float MaxValue(const float* x, int32_t count) {
  return HWY_DYNAMIC_DISPATCH(MaxValueImpl)(x, count);
}

double LogSumExp(const float* x, int32_t count) {
  const float largest = MaxValue(x, count);
  if (!std::isfinite(largest)) return largest;
  return largest + std::log(HWY_DYNAMIC_DISPATCH(SumExpImpl)(x, count, largest));
}

void ExpShifted(const float* x, int32_t count, float shift, float scale, float* out) {
  HWY_DYNAMIC_DISPATCH(ExpShiftedImpl)(x, count, shift, scale, out);
}

void LogSumExpOfRows(const std::vector<const float*>& rows, const std::vector<float>& shifts,
                     int32_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(LogSumExpOfRowsImpl)
  (rows.data(), shifts.data(), rows.size(), count, out);
}

double SumOfDivergences(const std::vector<const float*>& rows, const std::vector<float>& log_sums,
                        int32_t count) {
  return HWY_DYNAMIC_DISPATCH(SumOfDivergencesImpl)(rows.data(), log_sums.data(), rows.size(),
                                                    count);
}

}  // namespace chorus
#endif  // HWY_ONCE
