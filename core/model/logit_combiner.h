#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/step_plan.h"

namespace chorus {

// Combines rows of raw logits, each [vocab_size] float32, into one row `out`, [vocab_size]:
//   kNone       the one row as it is
//   kLogitMean  sum_i w_i x_i, the weights w summing to 1
//   kProbMean   log sum_i w_i softmax(x_i)
//   kProbMax    log of max_i softmax(x_i), renormalised
//   kLogitMax   max_i x_i
// `weights` is empty (all equal) or has one weight a row; kLogitMean and kProbMean alone read it.
// Probabilities never leave the logarithm, so nothing underflows. Pure: depends on these rows only.
// A NaN gives NaN in its place, for the probabilities everywhere. REQUIRES: at least one row,
// exactly one for kNone, and a positive weight; `out` is none of the rows, but for kNone.
void CombineLogits(CombineRule rule, const std::vector<const float*>& rows,
                   const std::vector<float>& weights, int32_t vocab_size, float* out);

// How far the rows' next-token distributions are apart: the Jensen-Shannon divergence of their
// softmaxes with equal weights (Lin, 1991), H(mean p) - mean H(p), in bits: 0 if they agree, log2
// of their number if no token is likely in two of them. NaN unless every row has a finite
// log-sum-exp. Pure, as CombineLogits. REQUIRES: at least one row.
float Disagreement(const std::vector<const float*>& rows, int32_t vocab_size);

}  // namespace chorus
