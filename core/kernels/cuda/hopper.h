#pragma once

#include <cstdint>

// The primitives that only compute capability 9.0 has, beside those of device.h: barriers in shared
// memory, copies by the tensor memory unit, and wgmma, the mma of a warpgroup of 128 threads.
//
// wgmma m64nNk16: A is 64 queries or weights, B is N columns; both K-major in shared memory
// (WgmmaShared), or A in registers, as mma's fragments with warp w's rows from 16 w on, and B
// MN-major (WgmmaRegisters). D's fragment is N / 8 of mma's C tiles. Order as the PTX ISA has it:
// WgmmaFence, any number of wgmma, WgmmaCommit, WgmmaWait, WgmmaResult on each D.
#include "core/kernels/cuda/device.h"
#if defined(__CUDACC__)
#include "core/kernels/cuda/hopper_cuda.h"
#else
#include "core/kernels/cuda/hopper_host.h"
#endif

namespace chorus::device {

// A matrix with the 128-byte swizzle in shared memory: rows of 128 bytes, from a multiple of 1024
// bytes on, pieces of 16 bytes exchanged as piece ^ (row % 8). `start` may lie inside it: bytes
// along a row, or multiples of eight rows.
//   K-major: eight rows of M or N each `stride` bytes after the other; `leading` has no meaning
//   MN-major: eight rows of K each `stride`, 64 columns each `leading` bytes after the other
CHORUS_DEVICE uint64_t SwizzledMatrix(SharedAddress start, int leading, int stride) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  const auto field = [](uint64_t bytes) { return bytes >> 4 & 0x3FFF; };
  return field(start) | field(leading) << 16 | field(stride) << 32 | kSwizzle128;
}

}  // namespace chorus::device
