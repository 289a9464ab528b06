#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/engine/request.h"
#include "core/engine/step_plan.h"
#include "core/segment/attention_window.h"
#include "core/segment/key_units.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// Tokens of a sequence whose keys and values do not depend on the rest of it but for the prefix: a
// prefix or a segment, to be found in the segment cache or computed for it.
struct SegmentUse {
  TokenRange tokens;           // of the sequence
  bool sees_prefix = false;    // a segment behind a prefix; the prefix is then the first use
  int32_t begin_position = 0;  // of its first token where it is computed
  // How far its keys are turned to stand where the layout has them. Not 0 for the segments of
  // SEQUENTIAL positions without a prefix: they are computed at position 0, whether the cache knows
  // them or not, so that a request gets the same bits from a cold and from a warm cache. A sliding
  // window goes along, as it looks at differences of positions only. Chunks of positions do not:
  // where a layer has them, a segment is computed at its place's remainder by the chunk size and
  // moved by whole chunks, so that it is cut where it would be in its place.
  int32_t moved_by = 0;
  uint64_t hash = 0;  // of all that identifies it, the same in every worker: for placement only
};

// One token list that the model reads under one mask.
struct SequencePlan {
  std::vector<int32_t> token_ids;  // prefix, segments and separators, suffix
  SegmentLayout layout;            // of token_ids
  int32_t prompt_index = 0;        // caller's index of its prompt; 0 for the fused sequence
  bool scales_segments = false;    // the request's SegmentScaling applies, and is not the identity
  // In order. What is in none is the sequence's own: separators, suffix, and the tail of a segment
  // whose last row gives the first token, because a cached segment has no logits.
  std::vector<SegmentUse> uses;
};

// Rows of one of a request's sequences.
struct SequenceRows {
  int32_t sequence_index = 0;
  TokenRange rows;
};

// One answer: a token is chosen from the sequences' rows, appended to all of them, and so on.
struct GenerationPlan {
  // In the order in which their rows are combined; the last num_companions are not: their rows are
  // only compared, to tell how far the prompts are apart, or scored, to tell what each says.
  std::vector<int32_t> sequence_indexes;
  int32_t num_companions = 0;
  int32_t num_combined() const {
    return static_cast<int32_t>(sequence_indexes.size()) - num_companions;
  }
  std::vector<int32_t> prompt_lengths;    // tokens of each of these sequences' prompts
  int32_t prompt_index = -1;              // caller's, where an answer is one prompt's; else -1
  uint64_t draw_seed = 0;

  // The sequences' own prompt rows in the order in which they run, after the segments that they
  // use. `early_rows` may be cut anywhere and spread over steps; they see no row of `final_rows`,
  // which run in one step because its first choice needs logits of them all.
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

  // The prompts' rows that are compared, or scored one by one, for the first token, as first_rows;
  // empty: never. For later tokens: the companions' rows, or without companions all that are combined.
  std::vector<LogitRow> first_compared_rows;

  // Later tokens: `rule` over the combined sequences' last rows.
  CombineRule rule = CombineRule::kNone;
  std::vector<float> weights;  // as first_weights, one a sequence

  // For the repetition penalty: each combined sequence's own, prefix once.
  std::vector<int32_t> prompt_tokens;

  KeyUnits key_units;  // of the fused sequence, if its attention is looked at; else empty
};

// A request as the engine runs it: what the model reads, and how answers come of it.
//
//   ATTENTION                   one sequence, one generation; if the prompts are to be compared, or
//                               scored one by one, a companion sequence per prompt beside it
//   logit methods               a sequence per prompt, one generation over them all
//   PER_PROMPT, VOTE            a sequence and a generation per prompt
//
// Every sequence is prefix, segments, suffix, and uses the segment cache for the first two: so all
// methods share what they compute, within a request and between requests.
struct FusionPlan {
  std::vector<SequencePlan> sequences;
  std::vector<GenerationPlan> generations;
  // ATTENTION: caller's index of each segment of the fused sequence, which is the first one.
  std::vector<int32_t> segment_prompts;
  bool has_windows = false;       // the model has layers with an AttentionWindow
  int32_t prompt_tokens = 0;     // rows to encode
  int64_t num_slots = 0;         // KV slots for every row it can ever run, at most
};

// Plans `request` for a model with these ModelInfo::layer_windows. Prompts stand in canonical order
// (ContentHash, then content, then weight; each weight goes with its prompt) where that makes the
// answer independent of the caller's order: OVERLAPPING positions without separator, the logit
// methods, and VOTE's ties. REQUIRES: ValidateRequest has accepted the request. INVALID_ARGUMENT if
// a layout cannot be.
absl::StatusOr<FusionPlan> PlanFusion(const Request& request,
                                      absl::Span<const AttentionWindow> layer_windows = {});

// Tokens that may follow the prompt in a sequence: those of the longest continuation, if it scores.
int32_t MaxNewTokens(const Request& request);

// Tokens of `request`, the shared prefix counted once, without planning it; companion sequences
// included.
struct RequestSize {
  int64_t prompt_tokens = 0;  // rows to encode
  int64_t total_tokens = 0;   // with those that may be generated, or are scored
  int64_t num_sequences = 0;  // of which each may read as many of those
  int64_t num_slots = 0;      // KV slots that it may need, segments before and after a move
};
RequestSize SizeOf(const Request& request);

// True if weights mean something for these parameters: LOGIT_MEAN, PROB_MEAN, or ATTENTION without
// suffix whose first token is FUSE_FIRST.
bool TakesWeights(const Request& request);

// The seed of prompt `prompt_index`'s own draws (PER_PROMPT, VOTE).
uint64_t PromptSeed(uint64_t seed, int32_t prompt_index);

}  // namespace chorus
