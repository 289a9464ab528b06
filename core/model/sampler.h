#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "core/engine/step_plan.h"

namespace chorus {

// Chooses a token from a combined row of logits, [vocab_size] float32. A pure function of `row` and
// of what `choice` holds: no state, no generator that remembers. In this order:
//   1. logit_bias is added; ids outside allowed_token_ids (if any are given) and banned ids go to
//      minus infinity; ids that the vocabulary does not have are ignored
//   2. penalties: repetition over the tokens of prompt and answer (a positive logit is divided, any
//      other multiplied; Keskar et al., 2019), then frequency times count and presence over the
//      answer
//   3. temperature 0: the largest, ties to the lowest id. Else logits / temperature, and of the
//      tokens in order of falling logit, ties by rising id:
//   4. top_k: the first k;  top_p: the shortest start that holds top_p of what is left (Holtzman et
//      al., 2020);  min_p: those with at least min_p of the first one's probability
//   5. a draw with RandomUniform(draw_seed, draw_index) over what is left, by rising id
// logprob, top_logprobs and target_logprobs (of `targets` only) are the log-softmax of `row` before
// step 1. `rule`, `rows`, `weights` and `target_rows` of the choice are not looked at.
//
// The result's status is INVALID_ARGUMENT if bans and allowed ids leave no token, INTERNAL if the
// row has no finite maximum or holds NaN; the token is then 0 and means nothing.
ChosenToken SampleToken(const TokenChoice& choice, const float* row, int32_t vocab_size);

// Appends the log-softmax of `row`, [vocab_size] raw logits, at each of `targets`, which are in
// [0, vocab_size). NaN for all if the row's log-sum-exp is not finite.
void AppendLogprobs(const float* row, int32_t vocab_size, const std::vector<int32_t>& targets,
                    std::vector<float>* logprobs);

// What a sampler on a device shares with SampleToken.

bool HasPenalties(const SamplingParams& sampling);
// Whether step 1 or 2 may change a logit.
bool ChangesLogits(const TokenChoice& choice);
// 1 / T for T > 0. A bound keeps 0 * infinity out: from there on only ties with the largest have a
// share.
float InverseTemperature(float temperature);
absl::Status NoTokenLeftError();            // INVALID_ARGUMENT
absl::Status LogitsNotFiniteError();        // INTERNAL
absl::Status BiasedLogitsNotFiniteError();  // INTERNAL

}  // namespace chorus
