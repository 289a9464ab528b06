#pragma once

#include <cstdint>

namespace chorus {

// A counter-based generator: the index-th 64-bit output of SplitMix64 (Steele, Lea, Flood, "Fast
// splittable pseudorandom number generators", 2014), started from the mixed seed. A pure function,
// so a draw depends on nothing but its seed and index. <random> was looked at: its distributions
// differ between standard libraries, and its engines carry state.
inline uint64_t MixBits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
inline uint64_t RandomBits(uint64_t seed, uint64_t index) {
  constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15ull;
  return MixBits(MixBits(seed + kGoldenGamma) + (index + 1) * kGoldenGamma);
}

// Uniform in [0, 1), a multiple of 2^-53.
inline double RandomUniform(uint64_t seed, uint64_t index) {
  return static_cast<double>(RandomBits(seed, index) >> 11) * 0x1p-53;
}

}  // namespace chorus
