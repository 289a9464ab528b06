#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/kernels/cuda/device_types.h"

// The primitives of device.h on a simulated thread block: every thread is a fiber, which runs until
// it reaches a collective (barrier, shuffle, mma, matrix load) and goes on when its warp or block
// has met there. What is wrong by the model below ends the launch with a message:
//
//   - reading shared memory that nobody wrote, or that another thread wrote, without a barrier
//     between, or that an asynchronous copy is still on its way to; writing what others may still
//     read. Shared memory begins as NaN, and the target of a copy is NaN until it has been waited
//     for
//   - any address outside shared memory, or outside the global arrays that the launch names;
//   16-byte
//     accesses that are not aligned
//   - threads of one warp at different collectives, or of a block of which some have ended
//
// Warps advance in an order drawn from a seed. Nothing here is fast: 20 to 50 ns a thread and
// collective.
namespace chorus::device {

// A global array that a kernel may touch.
struct HostArray {
  const void* data = nullptr;
  int64_t size = 0;  // bytes
  bool is_writable = false;
};

struct HostLaunch {
  int grid_x = 1;
  int grid_y = 1;
  int num_threads = 128;  // a multiple of the warp size
  int32_t shared_bytes = 0;
  uint32_t seed = 1;  // of the order in which warps advance
  const HostArray* arrays = nullptr;
  int num_arrays = 0;
};

// Runs `thread` as every thread of every block, one block after the other. Returns "" or what was
// wrong, with the block and thread that did it.
std::string RunOnHost(const HostLaunch& launch, const std::function<void()>& thread);

int ThreadIndex();
int BlockX();
int BlockY();
void SyncThreads();
float ShuffleXor(float value, int lane_mask);
float ShuffleFrom(float value, int lane);

// REQUIRES: [address, address + size) lies in one of the launch's arrays; ends it otherwise.
void CheckGlobal(const void* address, int64_t size, bool is_write);
// And that the address is a multiple of `size`.
void CheckGlobalVector(const void* address, int64_t size, bool is_write);

template <class T>
inline T LoadGlobal(const T* from) {
  CheckGlobal(from, sizeof(T), false);
  return *from;
}
template <class T>
inline void StoreGlobal(T* to, T value) {
  CheckGlobal(to, sizeof(T), true);
  *to = value;
}
template <class Element>
inline void StoreGlobalPair(Element* to, uint32_t pair) {
  CheckGlobal(to, 4, true);
  to[0].bits = static_cast<uint16_t>(pair);
  to[1].bits = static_cast<uint16_t>(pair >> 16);
}

template <class Element>
inline uint32_t LoadGlobalPair(const Element* from) {
  CheckGlobal(from, 4, false);
  return from[0].bits | uint32_t{from[1].bits} << 16;
}

template <int kCount>
inline void LoadGlobalFloats(const float* from, float (&values)[kCount]) {
  CheckGlobalVector(from, 4 * kCount, false);
  for (int i = 0; i < kCount; ++i) values[i] = from[i];
}
template <int kCount>
inline void StoreGlobalFloats(float* to, const float (&values)[kCount]) {
  CheckGlobalVector(to, 4 * kCount, true);
  for (int i = 0; i < kCount; ++i) to[i] = values[i];
}
template <class Element, int kPairs>
inline void LoadGlobalPairs(const Element* from, uint32_t (&pairs)[kPairs]) {
  CheckGlobalVector(from, 4 * kPairs, false);
  for (int i = 0; i < kPairs; ++i) pairs[i] = LoadGlobalPair(from + 2 * i);
}
template <class Element, int kPairs>
inline void StoreGlobalPairs(Element* to, const uint32_t (&pairs)[kPairs]) {
  CheckGlobalVector(to, 4 * kPairs, true);
  for (int i = 0; i < kPairs; ++i) StoreGlobalPair(to + 2 * i, pairs[i]);
}

float LoadShared(SharedAddress from);
void StoreShared(SharedAddress to, float value);
void CopyAsync16(SharedAddress to, const void* from, bool is_valid);
void CopyAsyncCommit();
void CopyAsyncWaitFor(int num_pending);
template <int kPending>
inline void CopyAsyncWait() {
  CopyAsyncWaitFor(kPending);
}
void LoadMatrix4(uint32_t (&matrices)[4], SharedAddress row);
void LoadMatrix4Transposed(uint32_t (&matrices)[4], SharedAddress row);

float ToFloat(BFloat16 value);
float ToFloat(Float16 value);
template <class Element>
Element FromFloat(float value);
struct FloatPair {
  float low, high;
};
template <class Element>
inline FloatPair UnpackPair(uint32_t pair) {
  return {ToFloat(Element{static_cast<uint16_t>(pair)}),
          ToFloat(Element{static_cast<uint16_t>(pair >> 16)})};
}
template <class Element>
uint32_t PackPair(float low, float high);
template <class Element>
void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

float Exp2(float x);
float ReciprocalSqrt(float x);
float Abs(float x);
float Log2(float x);
float Max(float a, float b);
float MinusInfinity();

// Integers and doubles, for sampling. Shared integers are aligned to their size.
int32_t ShuffleXor(int32_t value, int lane_mask);
uint64_t ShuffleXor(uint64_t value, int lane_mask);
double ShuffleXor(double value, int lane_mask);
uint64_t ShuffleUp(uint64_t value, int delta);
uint32_t LoadShared32(SharedAddress from);
void StoreShared32(SharedAddress to, uint32_t value);
uint64_t LoadShared64(SharedAddress from);
void StoreShared64(SharedAddress to, uint64_t value);
uint32_t AddShared32(SharedAddress to, uint32_t value);
void AddShared64(SharedAddress to, uint64_t value);
uint32_t FloatBits(float value);
float FloatFromBits(uint32_t bits);
uint64_t DoubleBits(double value);
double DoubleFromBits(uint64_t bits);
uint64_t MultiplyHigh(uint64_t a, uint64_t b);
double Log(double x);

}  // namespace chorus::device
