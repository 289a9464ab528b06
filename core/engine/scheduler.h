#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/running_request.h"

namespace chorus {

// A part of a step: some rows, on behalf of a request.
struct StepWork {
  enum class Kind {
    kSegment,  // rows of a shared segment, from its num_filled() on or from where another work ends
    kOwn,      // a generation's next own rows (see Generation::early_rows)
    kDecode,   // the last token's row in each of a generation's sequences
    kScore,    // some rows of a continuation in each of a generation's sequences (see Scoring)
  };
  Kind kind = Kind::kDecode;
  RunningRequest* request = nullptr;

  CachedSegment* segment = nullptr;  // kSegment
  TokenRange segment_rows;           // kSegment: of its tokens

  int32_t generation_index = 0;  // kOwn, kDecode, kScore
  int64_t num_early_rows = 0;    // kOwn: of the generation's early rows, from where it stands
  int64_t num_final_rows = 0;    // kOwn: after them all of its final rows, or none

  int32_t continuation = 0;      // kScore
  TokenRange continuation_rows;  // kScore: of its tokens, each of which scores the one behind it

  // Choices that come of it.
  int32_t num_choices() const;
  int64_t num_rows() const;
};

struct SchedulerOptions {
  int32_t max_step_rows = 512;  // >= 1
  // Rows a step for each request that still reads its prompt, while others generate.
  int32_t prompt_share_rows = 12;  // >= 1
};

// Decides which rows run next. A pure function of the requests it is shown and of the step's number.
// Owned by a worker.
//
// Rows that generate come first: all of them if max_step_rows can hold them, else in turn. Then
// prompts are read: with all rows that are left if nothing generates; else with prompt_share_rows
// for each request that reads, so that a step, and with it the gap between two tokens of a stream,
// grows with the number of prompts that wait and never with the length of one. In urgency order
// each prompt gets half of what is left, so that a short prompt passes a long one, and the rest
// goes to the most urgent. Continuations that are scored are read like prompts, in the same step as
// the end of the prompt where they fit. Three things may exceed max_step_rows: the rows of one
// generation that generates; one prompt row beside a full step of such rows; and rows that run
// together because one choice needs them all, when no other prompt rows run: a generation's final
// rows, or the rows of one token of a continuation.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options) : options_(options) {}

  // `requests` most urgent first, with KV space, without paused ones; every generating sequence has
  // a slot for its last token. Empty only if `requests` is.
  std::vector<StepWork> PlanStep(absl::Span<RunningRequest* const> requests);

 private:
  // Adds rows that generate; returns how many.
  int64_t AddDecodeWork(absl::Span<RunningRequest* const> requests, std::vector<StepWork>* works);

  const SchedulerOptions options_;
  int64_t next_turn_ = 0;  // where decoding goes on when not all fit: a count of generations
};

}  // namespace chorus
