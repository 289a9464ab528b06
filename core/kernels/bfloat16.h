#pragma once

#include <bit>
#include <cstdint>

namespace chorus {

// bfloat16 is the upper half of a float32. Conversion rounds to nearest, ties to even; a NaN stays
// a (quiet) NaN and an overflow becomes infinity, as IEEE 754 narrowing does.
inline uint16_t BFloat16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

inline float FloatFromBFloat16(uint16_t value) {
  return std::bit_cast<float>(uint32_t{value} << 16);
}

}  // namespace chorus
