#pragma once

#include <cstdint>
#include <vector>

namespace chorus {

// Passes over one row of logits, vectorised with run-time dispatch. Every result is a pure function
// of its arguments on one machine; the order of summation depends on the vector width, so that last
// digits may differ between machines.

// The largest of x[0..count), minus infinity for none; NaN if any is NaN.
float MaxValue(const float* x, int32_t count);

// Natural logarithm of sum exp(x). NaN if any is NaN, infinite if nothing is above minus infinity
// or something is plus infinity.
double LogSumExp(const float* x, int32_t count);

// out[i] = exp((x[i] - shift) * scale), in place allowed. Minus infinity gives 0.
void ExpShifted(const float* x, int32_t count, float shift, float scale, float* out);

// out[i] = log sum_r exp(rows[r][i] + shifts[r]) over at least one row; no overflow, no underflow.
void LogSumExpOfRows(const std::vector<const float*>& rows, const std::vector<float>& shifts,
                     int32_t count, float* out);

// sum_i sum_r p_r[i] ln(p_r[i] / m[i]), where p_r = exp(rows[r] - log_sums[r]) and m is the mean of
// the p_r: the sum of the rows' Kullback-Leibler divergences from their mean, in nats. At least one
// row; p = 0 adds nothing. Rounding may leave it slightly below 0.
double SumOfDivergences(const std::vector<const float*>& rows, const std::vector<float>& log_sums,
                        int32_t count);

}  // namespace chorus
