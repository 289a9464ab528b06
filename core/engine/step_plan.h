#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/engine/request.h"
#include "core/segment/attention_plan.h"
#include "core/segment/key_units.h"

namespace chorus {

// How the logit rows of one choice become one row. kNone: a single row as it is.
enum class CombineRule { kNone, kLogitMean, kProbMean, kProbMax, kLogitMax };

// One token to be chosen in a step. Pointers are borrowed from the engine's sequences and live
// until the step's result is in.
struct TokenChoice {
  CombineRule rule = CombineRule::kNone;
  std::vector<int32_t> rows;   // rows of the step whose logits are combined; one for kNone
  std::vector<float> weights;  // empty: equal; else one a row, summing to 1 (kLogitMean, kProbMean)
  const SamplingParams* sampling = nullptr;
  const std::vector<int32_t>* prompt_tokens = nullptr;     // for the repetition penalty
  const std::vector<int32_t>* generated_tokens = nullptr;  // for all penalties
  const std::vector<int32_t>* banned_token_ids = nullptr;  // null, or ids that may not be drawn now
  uint64_t draw_seed = 0;      // the draw is a pure function of (draw_seed, draw_index)
  int64_t draw_index = 0;      // number of tokens generated before
  int32_t top_logprobs = 0;
  bool want_logits = false;    // return the whole combined row (tests, scoring)
  // Rows whose distributions (softmax of raw logits) are compared: see ChosenToken::disagreement.
  // Empty: not wanted. Rows that are not among `rows` cost the head's matrix product for each.
  std::vector<int32_t> compared_rows;
  // Tokens whose log-probabilities are wanted whatever is chosen, and rows of which they are wanted
  // one by one as well: see ChosenToken::target_logprobs. Either may be empty.
  std::vector<int32_t> targets;
  std::vector<int32_t> target_rows;
};

// A row of the step whose attention is looked at. It changes no other result, not by a bit, and its
// own results depend on the row's sequence only. A row may have several.
struct AttentionProbe {
  int32_t row = 0;
  const KeyUnits* units = nullptr;  // by the row's sequence; borrowed, as TokenChoice's pointers
  // For AttentionProbeResult::mass and logits; ascending. Empty: only mean_mass is wanted.
  std::vector<int32_t> layers;
  std::vector<int32_t> heads;
};

// What the model runs next: a ragged batch of rows of all running requests, prefill and decode
// alike. A value, made by the Scheduler, read by a ModelRunner.
struct StepPlan {
  std::vector<int32_t> token_ids;  // [num_rows]
  std::vector<int32_t> positions;  // [num_rows] RoPE position ids
  std::vector<int32_t> slots;      // [num_rows] KV slot that the row writes before attention reads
  AttentionPlan attention;
  std::vector<TokenChoice> choices;
  std::vector<AttentionProbe> probes;

  int32_t num_rows() const { return static_cast<int32_t>(token_ids.size()); }
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0.0f;  // natural logarithm
};

struct ChosenToken {
  int32_t token_id = 0;
  float logprob = 0.0f;  // log-softmax of the combined row, before bias, penalties and temperature
  std::vector<TokenLogprob> top_logprobs;  // best first, ties to the lowest id
  std::vector<float> logits;               // [vocab_size] if want_logits
  // Jensen-Shannon divergence of the compared rows, equal weights, in bits, 0..log2(their number);
  // 0 if none were, NaN if their logits are not finite.
  float disagreement = 0.0f;
  // [1 + target_rows, targets]: log-softmax of the combined row at the targets, as logprob; then of
  // each of target_rows as it is. NaN where a row of target_rows is not finite.
  std::vector<float> target_logprobs;
  // Not OK if this one choice failed (INVALID_ARGUMENT: no token is left to choose from; INTERNAL: the
  // logits are not finite); token_id is then 0 and means nothing.
  absl::Status status;
};

struct AttentionProbeResult {
  // [num_units] softmax mass summed over a unit's keys, mean over all layers and heads. The units'
  // sum is 1 if they hold every key that the row sees, 0 if it sees none.
  std::vector<float> mean_mass;
  // [layers, heads, num_units] of those asked for: softmax mass, and q k * softmax_scale before
  // softmax and SegmentScaling, mean over the unit's keys that the row sees (NaN for none).
  std::vector<float> mass;
  std::vector<float> logits;
};

struct StepResult {
  std::vector<ChosenToken> tokens;           // one a choice, in order
  std::vector<AttentionProbeResult> probes;  // one a probe, in order
};

}  // namespace chorus
