// With intrinsics for the reason that core/kernels/packed_linear_dot.cc gives.
#include "tests/bench/machine_limits.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include "hwy/base.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bf16")
namespace chorus {

double MultiplyAddPairsMany() {
  constexpr int kChains = 12;
  constexpr int kSteps = 20000;
  constexpr int kPairs = 16;
  __m512 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(static_cast<float>(c));
  // 0x3F80 is 1 and 0x0000 is 0: each step adds 1 to every sum.
  auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3F803F80));
  auto ones_and_zeros = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x00003F80));
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], ones, ones_and_zeros);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  // A use of the result that the compiler cannot foresee: 12 * 20000 + 0 + 1 + ... + 11.
  const bool is_right = _mm512_cvtss_f32(sums[0]) == 240066.0f;
  return is_right ? 2.0 * kSteps * kChains * 2 * kPairs : 0.0;
}

}  // namespace chorus
HWY_POP_ATTRIBUTES
#else
namespace chorus {

double MultiplyAddPairsMany() { return 0.0; }

}  // namespace chorus
#endif
