#pragma once

#include <array>
#include <cstdint>

#include "core/kernels/cuda/device_host.h"

// The primitives of hopper.h on a simulated thread block. Beyond device_host.h these end a launch:
//
//   - reading what another thread or a copy wrote, or writing what others read, where no mbarrier
//     handed it over; waiting for a phase that never ends
//   - a wgmma whose matrix descriptor is not one of the 128-byte swizzle, whose operands were not
//     handed over, or not fenced, or change before it was waited for, or that was never waited for;
//     its result is NaN until then
namespace chorus::device {

inline constexpr bool kHasWarpgroups = true;
[[noreturn]] void Trap();

template <int kCount>
inline void RaiseRegisters() {}
template <int kCount>
inline void LowerRegisters() {}

int ShuffleFrom(int value, int lane);
bool VoteAll(bool is_true);

void InitMbarrier(SharedAddress at, int count);
void Arrive(SharedAddress at);
void ArriveExpectingBytes(SharedAddress at, int num_bytes);
void ArriveAfterCopies(SharedAddress at);
void WaitForPhase(SharedAddress at, int parity);
void FenceAsyncProxy();

// Of a [extents[2], extents[1], extents[0]] array of 16-bit elements, extents[0] innermost and
// without gaps; boxes are [box[2], 1, 64], and lie with the 128-byte swizzle in shared memory.
struct TensorMap {
  const void* base = nullptr;
  std::array<int, 3> extents{};
  int box_rows = 0;
};
void CopyBox(SharedAddress to, const TensorMap& map, int x, int y, int z, SharedAddress barrier);

void WgmmaFence();
void WgmmaCommit();
void WgmmaWaitFor(int num_pending);
template <int kPending>
inline void WgmmaWait() {
  WgmmaWaitFor(kPending);
}
void CheckWgmmaResult(const float* d);
template <int kTiles>
inline void WgmmaResult(float (&d)[kTiles][4]) {
  CheckWgmmaResult(&d[0][0]);
}

template <class Element>
void StartWgmma(float* d, int num_columns, const uint32_t* a, uint64_t a_matrix, uint64_t b_matrix,
                bool is_b_transposed, bool is_added);
template <class Element, int kTiles>
inline void WgmmaShared(float (&d)[kTiles][4], uint64_t a, uint64_t b, bool is_added) {
  StartWgmma<Element>(&d[0][0], 8 * kTiles, nullptr, a, b, false, is_added);
}
template <class Element, int kTiles>
inline void WgmmaRegisters(float (&d)[kTiles][4], const uint32_t (&a)[4], uint64_t b,
                           bool is_added) {
  StartWgmma<Element>(&d[0][0], 8 * kTiles, a, 0, b, true, is_added);
}

}  // namespace chorus::device
