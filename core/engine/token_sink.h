#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "core/engine/step_plan.h"

namespace chorus {

// How an answer ended.
enum class FinishReason { kEos = 1, kLength = 2, kStopString = 3, kStopToken = 4 };

// First event of a request that was admitted to a worker.
struct PromptSummary {
  std::vector<int32_t> segment_tokens;  // tokens of each prompt, caller's order
  int32_t original_length = 0;          // ATTENTION: where fused rows begin; else of prompt 0's row
  int32_t prompt_tokens = 0;            // rows to encode, shared prefix counted once
  int32_t cached_tokens = 0;            // of these, taken from the segment cache
  int32_t worker = 0;
};

// Softmax mass of the row that a token was drawn from, mean over layers and heads; sums to 1.
struct Attribution {
  float prefix = 0.0f;
  std::vector<float> segments;  // one a prompt, caller's order
  float separators = 0.0f;      // isolated ones
  float suffix = 0.0f;
  float generated = 0.0f;
};

// What the row that a token was drawn from looked at, as ExplainParams asks: where the first token is
// the mean of several rows, the mean over those that see the unit.
struct AttentionStep {
  int32_t step = 0;  // the token's index
  // [layers, heads, units], as AttentionProbeResult; units as KeyUnitsOf numbers them.
  std::vector<float> mass;
  std::vector<float> logits;
};

// One chosen token, or text that only now became certain (a held-back stop-string start or half a
// character at the end): then token_ids is empty.
struct TokenEvent {
  std::string text;  // valid UTF-8; may be empty
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;                          // one a token id
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // one list a token id, if asked for
  std::vector<Attribution> attribution;                 // one a token id, if asked for
  std::vector<float> disagreement;                      // one a token id, if asked for: bits
  std::vector<AttentionStep> attention_steps;           // of ExplainParams::steps
  int32_t prompt_index = -1;                            // PER_PROMPT: whose (caller's order); else -1
};

// Makes one event of two that follow each other in one answer.
void MergeEvent(TokenEvent event, TokenEvent* into);

// The whole answer of one prompt (PER_PROMPT, VOTE) or of the request.
struct Answer {
  FinishReason reason = FinishReason::kLength;
  std::string stop;  // the stop string or token that ended it, if any
  std::string text;
  std::vector<int32_t> token_ids;
  double mean_logprob = 0.0;  // of token_ids; 0 for none
};

struct VoteTally {
  std::string answer;  // normalised
  int32_t count = 0;
  std::vector<int32_t> prompt_indexes;  // caller's order
};

// How likely one of ScoreParams::continuations is, natural logarithms.
struct ContinuationScore {
  double logprob = 0.0;                   // sum of token_logprobs
  bool is_greedy = false;
  std::vector<float> token_logprobs;      // one a token, given those before it
  std::vector<double> prompt_logprobs;    // one a prompt, caller's order; empty if not wanted
  std::vector<int32_t> greedy_token_ids;  // one a token; empty for PER_PROMPT and VOTE
};

struct FinishSummary {
  Answer answer;                // the fused or winning one; for PER_PROMPT, prompt 0's
  std::vector<Answer> prompts;  // PER_PROMPT and VOTE, in the caller's order
  std::vector<VoteTally> tally; // VOTE, most frequent first
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t generated_tokens = 0;  // over all sequences
  std::vector<ContinuationScore> scores;  // Score, in the request's order; only once all are known
  int32_t scored_tokens = 0;     // Score: of continuations, each once
  int32_t model_steps = 0;       // steps that this request took part in
  absl::Duration queue_time;     // submission to first step
  absl::Duration first_token_time;  // submission to first token; zero if there was none
  absl::Duration total_time;
};

// Where a request's events go. Called by the worker thread that owns the request (OnFinish possibly
// by the thread that calls Submit, Cancel or Drain, if the request never reached a worker); calls
// must not block. OnFinish is called exactly once and is the last call.
class TokenSink {
 public:
  virtual ~TokenSink() = default;

  virtual void OnStart(const PromptSummary& summary) = 0;
  virtual void OnToken(TokenEvent event) = 0;
  // OK with a summary, or the error that ended the request (then `summary` holds what there was).
  virtual void OnFinish(const absl::Status& status, FinishSummary summary) = 0;

  // False while the reader is too far behind: the engine then pauses the request at the next step
  // boundary until this is true again or its deadline passes. Thread-safe.
  virtual bool WantsMore() const { return true; }
};

}  // namespace chorus
