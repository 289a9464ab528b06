#pragma once

#include <cstdint>

// What both back ends of the device primitives agree on.

#if defined(__CUDACC__)
#define CHORUS_DEVICE __device__ __forceinline__
#else
#define CHORUS_DEVICE inline
#endif

namespace chorus::device {

inline constexpr int kWarpSize = 32;
inline constexpr int kWarpgroupSize = 128;

// An address in a block's shared memory, in bytes; the block's own begins at a multiple of 128.
using SharedAddress = uint32_t;

// 16-bit floats as they lie in memory. The primitives round to nearest even.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

}  // namespace chorus::device
