#pragma once

#include <cstdint>

namespace chorus {

// What the machine can do at best, for benchmarks to compare with. One thread's share each.

// Sum of `size` floats, by vectors: reads memory as fast as a core can.
float SumFloats(const float* data, int64_t size);

// Runs many independent fused multiply-adds on registers; returns the floating point operations
// done (a multiply-add counts two).
double MultiplyAddMany();

// The same with dot products of bfloat16 pairs. REQUIRES: HasBFloat16Dot().
double MultiplyAddPairsMany();

}  // namespace chorus
