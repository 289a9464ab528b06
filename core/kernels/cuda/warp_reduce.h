#pragma once

#include "core/kernels/cuda/device.h"

// Sums and maxima over the lanes of a warp, the same in every lane, in one order.
namespace chorus::device {

CHORUS_DEVICE float SumOfWarp(float value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  return value;
}

CHORUS_DEVICE float MaxOfWarp(float value) {
#pragma unroll
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = Max(value, ShuffleXor(value, mask));
  return value;
}

}  // namespace chorus::device
