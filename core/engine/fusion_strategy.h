#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "core/engine/request.h"
#include "core/engine/step_plan.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// One token list that the model reads under one mask.
struct SequencePlan {
  std::vector<int32_t> token_ids;  // prefix, segments and separators, suffix
  SegmentLayout layout;            // of token_ids; plainly causal but for ATTENTION
  int32_t original_length = 0;     // where suffix and generated rows begin
  int32_t prompt_index = 0;        // caller's index of its prompt; 0 for ATTENTION
};

// Rows of one of a request's sequences.
struct SequenceRows {
  int32_t sequence_index = 0;
  TokenRange rows;
};

// One answer: a token is chosen from the sequences' rows, appended to all of them, and so on.
struct GenerationPlan {
  std::vector<int32_t> sequence_indexes;  // in the order in which their rows are combined
  int32_t prompt_index = -1;              // caller's, where an answer is one prompt's; else -1
  uint64_t draw_seed = 0;

  // Prompt rows in the order in which they run. `early_rows` may be cut anywhere and spread over
  // steps; they see no row of `final_rows`, which run in one step because its first choice needs
  // logits of them all.
  std::vector<SequenceRows> early_rows;
  std::vector<SequenceRows> final_rows;

  // The first token: `first_rule` over rows of sequences, each of which is one of final_rows.
  struct LogitRow {
    int32_t sequence_index = 0;
    int32_t row = 0;
  };
  CombineRule first_rule = CombineRule::kNone;
  std::vector<LogitRow> first_rows;
  std::vector<float> first_weights;  // empty: equal; else one a row, summing to 1

  // Later tokens: `rule` over the sequences' last rows.
  CombineRule rule = CombineRule::kNone;
  std::vector<float> weights;  // as first_weights, one a sequence

  std::vector<int32_t>
      prompt_tokens;  // for the repetition penalty: each sequence's own, prefix once
};

// A request as the engine runs it: what the model reads, and how answers come of it.
//
//   ATTENTION                   one sequence, one generation
//   logit methods               a sequence per prompt, one generation over them all
//   PER_PROMPT, VOTE            a sequence and a generation per prompt
//
// Where there are several sequences the shared prefix is computed and stored once: sequences other
// than the first begin at `shared_prefix` and read the first one's slots before it.
struct FusionPlan {
  std::vector<SequencePlan> sequences;
  std::vector<GenerationPlan> generations;
  int32_t shared_prefix = 0;     // tokens
  bool scales_segments = false;  // ATTENTION with a SegmentScaling that is not the identity
  int32_t prompt_tokens = 0;     // rows to encode
  int64_t num_slots = 0;         // KV slots for every row it can ever run
};

// Plans `request`. Prompts stand in canonical order (ContentHash, then content, then weight; each
// weight goes with its prompt) where that makes the answer independent of the caller's order:
// OVERLAPPING positions without separator, the logit methods, and VOTE's ties.
// REQUIRES: ValidateRequest has accepted the request. INVALID_ARGUMENT if a layout cannot be.
absl::StatusOr<FusionPlan> PlanFusion(const Request& request);

// Tokens whose keys and values `request` may have to store, generated ones included, and the prompt
// rows among them, without planning it.
struct RequestSize {
  int64_t prompt_tokens = 0;
  int64_t total_tokens = 0;
};
RequestSize SizeOf(const Request& request);

// True if weights mean something for these parameters: LOGIT_MEAN, PROB_MEAN, or ATTENTION without
// suffix whose first token is FUSE_FIRST.
bool TakesWeights(const Request& request);

// The seed of prompt `prompt_index`'s own draws (PER_PROMPT, VOTE).
uint64_t PromptSeed(uint64_t seed, int32_t prompt_index);

}  // namespace chorus
