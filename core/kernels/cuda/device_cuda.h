#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/kernels/cuda/device_types.h"

// The primitives of device.h as instructions, sm_80 and later. Inline PTX is volatile where order
// matters, and says "memory" where it reads or writes it.
namespace chorus::device {

CHORUS_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
CHORUS_DEVICE int BlockX() { return static_cast<int>(blockIdx.x); }
CHORUS_DEVICE int BlockY() { return static_cast<int>(blockIdx.y); }

CHORUS_DEVICE void SyncThreads() { __syncthreads(); }

CHORUS_DEVICE float ShuffleXor(float value, int lane_mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, lane_mask);
}

// The value of that lane.
CHORUS_DEVICE float ShuffleFrom(float value, int lane) {
  return __shfl_sync(0xFFFFFFFFu, value, lane);
}

template <class T>
CHORUS_DEVICE T LoadGlobal(const T* from) {
  return *from;
}
template <class T>
CHORUS_DEVICE void StoreGlobal(T* to, T value) {
  *to = value;
}

// Two 16-bit floats in a row; `to` is a multiple of 4 bytes.
template <class Element>
CHORUS_DEVICE void StoreGlobalPair(Element* to, uint32_t pair) {
  *reinterpret_cast<uint32_t*>(to) = pair;
}

template <class Element>
CHORUS_DEVICE uint32_t LoadGlobalPair(const Element* from) {
  return *reinterpret_cast<const uint32_t*>(from);
}

// Several in a row by one instruction; the address is a multiple of their size, 8 or 16 bytes.
CHORUS_DEVICE void LoadGlobalFloats(const float* from, float (&values)[2]) {
  const float2 loaded = *reinterpret_cast<const float2*>(from);
  values[0] = loaded.x, values[1] = loaded.y;
}
CHORUS_DEVICE void LoadGlobalFloats(const float* from, float (&values)[4]) {
  const float4 loaded = *reinterpret_cast<const float4*>(from);
  values[0] = loaded.x, values[1] = loaded.y, values[2] = loaded.z, values[3] = loaded.w;
}
CHORUS_DEVICE void StoreGlobalFloats(float* to, const float (&values)[2]) {
  *reinterpret_cast<float2*>(to) = {values[0], values[1]};
}
CHORUS_DEVICE void StoreGlobalFloats(float* to, const float (&values)[4]) {
  *reinterpret_cast<float4*>(to) = {values[0], values[1], values[2], values[3]};
}
template <class Element>
CHORUS_DEVICE void LoadGlobalPairs(const Element* from, uint32_t (&pairs)[1]) {
  pairs[0] = LoadGlobalPair(from);
}
template <class Element>
CHORUS_DEVICE void LoadGlobalPairs(const Element* from, uint32_t (&pairs)[2]) {
  const uint2 loaded = *reinterpret_cast<const uint2*>(from);
  pairs[0] = loaded.x, pairs[1] = loaded.y;
}
template <class Element>
CHORUS_DEVICE void LoadGlobalPairs(const Element* from, uint32_t (&pairs)[4]) {
  const uint4 loaded = *reinterpret_cast<const uint4*>(from);
  pairs[0] = loaded.x, pairs[1] = loaded.y, pairs[2] = loaded.z, pairs[3] = loaded.w;
}
template <class Element>
CHORUS_DEVICE void StoreGlobalPairs(Element* to, const uint32_t (&pairs)[1]) {
  StoreGlobalPair(to, pairs[0]);
}
template <class Element>
CHORUS_DEVICE void StoreGlobalPairs(Element* to, const uint32_t (&pairs)[2]) {
  *reinterpret_cast<uint2*>(to) = {pairs[0], pairs[1]};
}
// nvcc takes some stores of a uint4 apart.
template <class Element>
CHORUS_DEVICE void StoreGlobalPairs(Element* to, const uint32_t (&pairs)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(pairs[0]), "r"(pairs[1]),
               "r"(pairs[2]), "r"(pairs[3])
               : "memory");
}

CHORUS_DEVICE float LoadShared(SharedAddress from) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(from) : "memory");
  return value;
}
CHORUS_DEVICE void StoreShared(SharedAddress to, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(value) : "memory");
}

// 16 bytes, both ends aligned to them; zeros if not valid, and then nothing is read. In `to` they
// are once the thread has waited, and seen by others once they have met at a barrier after that.
CHORUS_DEVICE void CopyAsync16(SharedAddress to, const void* from, bool is_valid) {
  const int size = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(size)
               : "memory");
}
CHORUS_DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of the thread's newest groups are under way.
template <int kPending>
CHORUS_DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8.
// matrices[i]: elements (g, 2t), (g, 2t + 1) of matrix i.
CHORUS_DEVICE void LoadMatrix4(uint32_t (&matrices)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row)
               : "memory");
}
// The same of the matrices' transposes: elements (2t, g), (2t + 1, g).
CHORUS_DEVICE void LoadMatrix4Transposed(uint32_t (&matrices)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(row)
               : "memory");
}

// c += a b, of 16-bit elements with float32 sums.
template <class Element>
CHORUS_DEVICE void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
CHORUS_DEVICE void Mma<BFloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
CHORUS_DEVICE void Mma<Float16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// `low` in the lower half.
template <class Element>
CHORUS_DEVICE uint32_t PackPair(float low, float high);

template <>
CHORUS_DEVICE uint32_t PackPair<BFloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <>
CHORUS_DEVICE uint32_t PackPair<Float16>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

struct FloatPair {
  float low, high;
};
template <class Element>
CHORUS_DEVICE FloatPair UnpackPair(uint32_t pair);

template <>
CHORUS_DEVICE FloatPair UnpackPair<BFloat16>(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
}
template <>
CHORUS_DEVICE FloatPair UnpackPair<Float16>(uint32_t pair) {
  const float2 floats = __half22float2(*reinterpret_cast<const __half2*>(&pair));
  return {floats.x, floats.y};
}

template <class Element>
CHORUS_DEVICE Element FromFloat(float value);

template <>
CHORUS_DEVICE BFloat16 FromFloat<BFloat16>(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}
template <>
CHORUS_DEVICE Float16 FromFloat<Float16>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}

// 2^x, off by at most two units in the last place; 0 for minus infinity.
CHORUS_DEVICE float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
CHORUS_DEVICE float ReciprocalSqrt(float x) { return 1.0f / sqrtf(x); }
CHORUS_DEVICE float Abs(float x) { return fabsf(x); }
CHORUS_DEVICE float Log2(float x) { return log2f(x); }
CHORUS_DEVICE float Max(float a, float b) { return fmaxf(a, b); }
CHORUS_DEVICE float MinusInfinity() { return __int_as_float(0xFF800000); }

// Integers and doubles, for sampling. Shared integers are aligned to their size.
CHORUS_DEVICE int32_t ShuffleXor(int32_t value, int lane_mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, lane_mask);
}
CHORUS_DEVICE uint64_t ShuffleXor(uint64_t value, int lane_mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, static_cast<unsigned long long>(value), lane_mask);
}
CHORUS_DEVICE double ShuffleXor(double value, int lane_mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, lane_mask);
}
// Of the lane `delta` below; a lane that has none keeps its own.
CHORUS_DEVICE uint64_t ShuffleUp(uint64_t value, int delta) {
  return __shfl_up_sync(0xFFFFFFFFu, static_cast<unsigned long long>(value), delta);
}

CHORUS_DEVICE uint32_t LoadShared32(SharedAddress from) {
  uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  return value;
}
CHORUS_DEVICE void StoreShared32(SharedAddress to, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
CHORUS_DEVICE uint64_t LoadShared64(SharedAddress from) {
  uint64_t value;
  asm volatile("ld.shared.u64 %0, [%1];" : "=l"(value) : "r"(from) : "memory");
  return value;
}
CHORUS_DEVICE void StoreShared64(SharedAddress to, uint64_t value) {
  asm volatile("st.shared.u64 [%0], %1;" ::"r"(to), "l"(value) : "memory");
}
// Adds modulo 2^32 or 2^64. Any number of threads may add to one integer between two barriers, as
// long as nobody reads or writes it there. The first returns what the integer was.
CHORUS_DEVICE uint32_t AddShared32(SharedAddress to, uint32_t value) {
  uint32_t before;
  asm volatile("atom.shared.add.u32 %0, [%1], %2;" : "=r"(before) : "r"(to), "r"(value) : "memory");
  return before;
}
// 64-bit adds to shared memory are loops of compare and swap; two 32-bit ones and the carry give
// the same sum, in whatever order they come.
CHORUS_DEVICE void AddShared64(SharedAddress to, uint64_t value) {
  const uint32_t low = static_cast<uint32_t>(value);
  const uint32_t carry = AddShared32(to, low) > ~low ? 1 : 0;
  const uint32_t high = static_cast<uint32_t>(value >> 32) + carry;
  if (high != 0) AddShared32(to + 4, high);
}

CHORUS_DEVICE uint32_t FloatBits(float value) { return __float_as_uint(value); }
CHORUS_DEVICE float FloatFromBits(uint32_t bits) { return __uint_as_float(bits); }
CHORUS_DEVICE uint64_t DoubleBits(double value) {
  return static_cast<uint64_t>(__double_as_longlong(value));
}
CHORUS_DEVICE double DoubleFromBits(uint64_t bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}
// The upper half of the 128-bit product.
CHORUS_DEVICE uint64_t MultiplyHigh(uint64_t a, uint64_t b) { return __umul64hi(a, b); }
CHORUS_DEVICE double Log(double x) { return log(x); }  // natural

}  // namespace chorus::device
