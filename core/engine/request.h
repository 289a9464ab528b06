#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "core/segment/attention_plan.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// How several prompts become one answer. Values equal those of chorus.v1.FusionMethod.
enum class FusionMethod {
  kAttention = 1,   // segment mask; one row a step
  kLogitMean = 2,   // (weighted) mean over prompts of raw logits
  kProbMean = 3,    // (weighted) mean of softmax probabilities
  kProbMax = 4,     // elementwise maximum of softmax probabilities, renormalised
  kLogitMax = 5,    // elementwise maximum of raw logits
  kPerPrompt = 6,   // no fusion: every prompt's own answer
  kVote = 7,        // majority over the per-prompt answers
};

// Where an ATTENTION request without a suffix takes its first token from: kFuseFirst, the
// (weighted) mean of raw logits of each segment's last own token; kLastSegment, the last one's.
enum class FirstToken { kFuseFirst = 1, kLastSegment = 2 };

struct FusionParams {
  FusionMethod method = FusionMethod::kAttention;
  PositionMode positions = PositionMode::kOverlapping;
  SeparatorPolicy separators = SeparatorPolicy::kIsolated;
  FirstToken first_token = FirstToken::kFuseFirst;
  std::vector<float> weights;             // empty, or one a prompt in the caller's order
  std::optional<SegmentScaling> scaling;  // ATTENTION only
};

// How a token is drawn from a (combined) row of logits, in this order: logit_bias and
// allowed_token_ids, penalties, temperature, top_k, top_p, min_p, draw. Greedy when temperature is
// 0; ties go to the lowest id.
struct SamplingParams {
  float temperature = 0.0f;         // >= 0
  float top_p = 1.0f;               // (0, 1]
  int32_t top_k = 0;                // >= 0; 0: off
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens
  float presence_penalty = 0.0f;    // [-2, 2]; over generated tokens
  float frequency_penalty = 0.0f;   // [-2, 2]; over generated tokens
  uint64_t seed = 0;                // the same seed gives the same stream
  std::map<int32_t, float> logit_bias;
  std::vector<int32_t> allowed_token_ids;  // empty: all

  friend bool operator==(const SamplingParams&, const SamplingParams&) = default;
};

struct StoppingParams {
  int32_t max_new_tokens = 64;  // >= 1
  int32_t min_new_tokens = 0;   // EOS and stop_token_ids are not drawn before this many
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
};

struct ResponseParams {
  int32_t top_logprobs = 0;  // 0..20
  bool attribution = false;  // ATTENTION only
  // Not PER_PROMPT and VOTE. ATTENTION: costs a row a prompt a step.
  bool prompt_disagreement = false;

  friend bool operator==(const ResponseParams&, const ResponseParams&) = default;
};

// Which attention is to be seen, in every row that a token is drawn from. ATTENTION only. A request
// with it runs behind all others: see Batch.
struct ExplainParams {
  // Each ascending and not empty.
  std::vector<int32_t> layers;
  std::vector<int32_t> heads;
  std::vector<int32_t> steps;  // indexes of generated tokens
};

// Continuations whose log-likelihoods are wanted instead of an answer. Sampling and response of the
// request are then left at their defaults, and stopping means nothing.
struct ScoreParams {
  std::vector<std::vector<int32_t>> continuations;  // none empty
  // Also under each prompt alone. ATTENTION reads every prompt on its own for it; logit methods,
  // PER_PROMPT and VOTE have them anyway.
  bool prompt_logprobs = true;
};

// What was asked, in token ids. Const once submitted. Every piece was tokenised on its own.
struct Request {
  std::string id;
  std::vector<int32_t> prefix;
  std::vector<std::vector<int32_t>> prompts;  // segment 0 is the question; caller's order
  std::vector<int32_t> suffix;
  std::vector<int32_t> separator;
  FusionParams fusion;
  SamplingParams sampling;
  StoppingParams stopping;
  ResponseParams response;
  std::optional<ExplainParams> explain;
  std::optional<ScoreParams> score;
  absl::Time deadline = absl::InfiniteFuture();
  int32_t priority = 0;
};

}  // namespace chorus
