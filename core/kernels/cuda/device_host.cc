#include "core/kernels/cuda/device_host.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "absl/numeric/int128.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/kernels/bfloat16.h"
#include "core/kernels/cuda/host_block.h"

namespace chorus::device {
namespace {

using Lanes = std::span<void* const>;

template <class T>
T& Of(Lanes lanes, int lane) {
  return *static_cast<T*>(lanes[lane]);
}

struct Shuffle {
  float value;
  int argument;  // lane mask, or lane
  float result;
};

void CollectShuffle(Lanes lanes) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    Shuffle& shuffle = Of<Shuffle>(lanes, lane);
    shuffle.result = Of<Shuffle>(lanes, lane ^ shuffle.argument).value;
  }
}

void CollectShuffleFrom(Lanes lanes) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    Shuffle& shuffle = Of<Shuffle>(lanes, lane);
    shuffle.result = Of<Shuffle>(lanes, shuffle.argument % kWarpSize).value;
  }
}

struct MatrixLoad {
  SharedAddress row;
  uint16_t elements[8];  // of that row
  uint32_t matrices[4];
};

uint32_t Pair(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }

template <bool kIsTransposed>
void CollectMatrixLoad(Lanes lanes) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const auto row = [&](int r) { return Of<MatrixLoad>(lanes, 8 * i + r).elements; };
      Of<MatrixLoad>(lanes, lane).matrices[i] = kIsTransposed
                                                    ? Pair(row(2 * t)[g], row(2 * t + 1)[g])
                                                    : Pair(row(g)[2 * t], row(g)[2 * t + 1]);
    }
  }
}

template <bool kIsTransposed>
void LoadMatrices(uint32_t (&matrices)[4], SharedAddress row) {
  HostBlock& block = HostBlock::Current();
  MatrixLoad load{.row = row};
  block.shared().Read(row, load.elements, sizeof(load.elements), block.thread_index());
  block.MeetWarp(CollectMatrixLoad<kIsTransposed>, &load);
  std::memcpy(matrices, load.matrices, sizeof(matrices));
}

struct MmaArguments {
  float* c;
  const uint32_t* a;
  uint32_t b[2];
};

template <class Element>
void Unpack(uint32_t pair, float* out) {
  const FloatPair floats = UnpackPair<Element>(pair);
  out[0] = floats.low;
  out[1] = floats.high;
}

// Products of 16-bit floats are exact in float32; the hardware's order of the sum is not
// documented.
template <class Element>
void CollectMma(Lanes lanes) {
  float a[16][16], b[8][16];  // b by column
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const MmaArguments& arguments = Of<MmaArguments>(lanes, lane);
    Unpack<Element>(arguments.a[0], &a[g][2 * t]);
    Unpack<Element>(arguments.a[1], &a[g + 8][2 * t]);
    Unpack<Element>(arguments.a[2], &a[g][2 * t + 8]);
    Unpack<Element>(arguments.a[3], &a[g + 8][2 * t + 8]);
    Unpack<Element>(arguments.b[0], &b[g][2 * t]);
    Unpack<Element>(arguments.b[1], &b[g][2 * t + 8]);
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const float* row = a[g + i / 2 * 8];
      const float* column = b[2 * t + i % 2];
      float sum = 0.0f;
      for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
      Of<MmaArguments>(lanes, lane).c[i] += sum;
    }
  }
}

}  // namespace

std::string RunOnHost(const HostLaunch& launch, const std::function<void()>& thread) {
  CHECK(launch.num_threads > 0 && launch.num_threads % kWarpSize == 0);
  for (int y = 0; y < launch.grid_y; ++y) {
    for (int x = 0; x < launch.grid_x; ++x) {
      HostBlock block(launch, x, y);
      try {
        block.Run(thread);
      } catch (const HostFault& fault) {
        return absl::StrCat("block (", x, ", ", y, "), thread ", block.thread_index(), ": ",
                            fault.message);
      }
    }
  }
  return "";
}

int ThreadIndex() { return HostBlock::Current().thread_index(); }
int BlockX() { return HostBlock::Current().block_x(); }
int BlockY() { return HostBlock::Current().block_y(); }
void SyncThreads() { HostBlock::Current().Barrier(); }

float ShuffleXor(float value, int lane_mask) {
  Shuffle shuffle{value, lane_mask, 0.0f};
  HostBlock::Current().MeetWarp(CollectShuffle, &shuffle);
  return shuffle.result;
}

float ShuffleFrom(float value, int lane) {
  Shuffle shuffle{value, lane, 0.0f};
  HostBlock::Current().MeetWarp(CollectShuffleFrom, &shuffle);
  return shuffle.result;
}

void CheckGlobal(const void* address, int64_t size, bool is_write) {
  HostBlock::Current().CheckGlobal(address, size, is_write);
}

void CheckGlobalVector(const void* address, int64_t size, bool is_write) {
  if (reinterpret_cast<uintptr_t>(address) % size != 0) {
    throw HostFault{absl::StrCat(size, " bytes of global memory are not aligned")};
  }
  CheckGlobal(address, size, is_write);
}

float LoadShared(SharedAddress from) {
  HostBlock& block = HostBlock::Current();
  float value;
  block.shared().Read(from, &value, sizeof(value), block.thread_index());
  return value;
}

void StoreShared(SharedAddress to, float value) {
  HostBlock& block = HostBlock::Current();
  block.shared().Write(to, &value, sizeof(value), block.thread_index());
}

void CopyAsync16(SharedAddress to, const void* from, bool is_valid) {
  HostBlock& block = HostBlock::Current();
  if (is_valid) {
    block.CheckGlobal(from, 16, false);
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) {
      throw HostFault{"copies from an address that is not aligned to 16 bytes"};
    }
  }
  block.AddCopy({to, is_valid ? from : nullptr});
}

void CopyAsyncCommit() { HostBlock::Current().CommitCopies(); }
void CopyAsyncWaitFor(int num_pending) { HostBlock::Current().WaitForCopies(num_pending); }

void LoadMatrix4(uint32_t (&matrices)[4], SharedAddress row) { LoadMatrices<false>(matrices, row); }
void LoadMatrix4Transposed(uint32_t (&matrices)[4], SharedAddress row) {
  LoadMatrices<true>(matrices, row);
}

float ToFloat(BFloat16 value) { return FloatFromBFloat16(value.bits); }

float ToFloat(Float16 value) {
  const uint32_t sign = uint32_t{value.bits} >> 15, exponent = value.bits >> 10 & 31;
  const uint32_t mantissa = value.bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
  }
  return sign != 0 ? -magnitude : magnitude;
}

template <>
BFloat16 FromFloat<BFloat16>(float value) {
  return {BFloat16FromFloat(value)};
}

template <>
Float16 FromFloat<Float16>(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::abs(value);
  if (std::isnan(value)) return {0x7FFF};
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7C00)};
  if (magnitude == 0.0f) return {sign};
  // Steps of 2^-24 below the smallest normal number, else 2^-10 of the leading bit; nearbyint
  // rounds to even, and a carry into the exponent is the right one.
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return {static_cast<uint16_t>(sign | (((exponent + 14) << 10) + steps))};
}

template <class Element>
uint32_t PackPair(float low, float high) {
  return Pair(FromFloat<Element>(low).bits, FromFloat<Element>(high).bits);
}
template uint32_t PackPair<BFloat16>(float, float);
template uint32_t PackPair<Float16>(float, float);

template <class Element>
void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaArguments arguments{c, a, {b0, b1}};
  HostBlock::Current().MeetWarp(CollectMma<Element>, &arguments);
}
template void Mma<BFloat16>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t);
template void Mma<Float16>(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t);

float Exp2(float x) { return std::exp2(x); }
float ReciprocalSqrt(float x) { return 1.0f / std::sqrt(x); }
float Abs(float x) { return std::abs(x); }
float Log2(float x) { return std::log2(x); }
float Max(float a, float b) { return std::fmax(a, b); }
float MinusInfinity() { return -std::numeric_limits<float>::infinity(); }

namespace {

struct WideShuffle {
  uint64_t value;
  int argument;  // lane mask, or distance
  uint64_t result;
};

void CollectWideShuffleXor(Lanes lanes) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    WideShuffle& shuffle = Of<WideShuffle>(lanes, lane);
    shuffle.result = Of<WideShuffle>(lanes, lane ^ shuffle.argument).value;
  }
}

void CollectShuffleUp(Lanes lanes) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    WideShuffle& shuffle = Of<WideShuffle>(lanes, lane);
    const int from = lane < shuffle.argument ? lane : lane - shuffle.argument;
    shuffle.result = Of<WideShuffle>(lanes, from).value;
  }
}

template <class T>
T ReadShared(SharedAddress from) {
  HostBlock& block = HostBlock::Current();
  T value;
  block.shared().Read(from, &value, sizeof(value), block.thread_index());
  return value;
}

template <class T>
void WriteShared(SharedAddress to, T value) {
  HostBlock& block = HostBlock::Current();
  block.shared().Write(to, &value, sizeof(value), block.thread_index());
}

}  // namespace

uint64_t ShuffleXor(uint64_t value, int lane_mask) {
  WideShuffle shuffle{value, lane_mask, 0};
  HostBlock::Current().MeetWarp(CollectWideShuffleXor, &shuffle);
  return shuffle.result;
}
int32_t ShuffleXor(int32_t value, int lane_mask) {
  return static_cast<int32_t>(ShuffleXor(static_cast<uint64_t>(value), lane_mask));
}
double ShuffleXor(double value, int lane_mask) {
  return DoubleFromBits(ShuffleXor(DoubleBits(value), lane_mask));
}
uint64_t ShuffleUp(uint64_t value, int delta) {
  WideShuffle shuffle{value, delta, 0};
  HostBlock::Current().MeetWarp(CollectShuffleUp, &shuffle);
  return shuffle.result;
}

uint32_t LoadShared32(SharedAddress from) { return ReadShared<uint32_t>(from); }
void StoreShared32(SharedAddress to, uint32_t value) { WriteShared(to, value); }
uint64_t LoadShared64(SharedAddress from) { return ReadShared<uint64_t>(from); }
void StoreShared64(SharedAddress to, uint64_t value) { WriteShared(to, value); }

uint32_t AddShared32(SharedAddress to, uint32_t value) {
  return static_cast<uint32_t>(HostBlock::Current().shared().Add(to, value, sizeof(value)));
}
void AddShared64(SharedAddress to, uint64_t value) {
  HostBlock::Current().shared().Add(to, value, sizeof(value));
}

uint32_t FloatBits(float value) { return std::bit_cast<uint32_t>(value); }
float FloatFromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint64_t DoubleBits(double value) { return std::bit_cast<uint64_t>(value); }
double DoubleFromBits(uint64_t bits) { return std::bit_cast<double>(bits); }
uint64_t MultiplyHigh(uint64_t a, uint64_t b) {
  return absl::Uint128High64(absl::uint128(a) * absl::uint128(b));
}
double Log(double x) { return std::log(x); }

}  // namespace chorus::device
