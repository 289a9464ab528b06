#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"

#include "core/cache/slot_allocator.h"
#include "core/engine/generation.h"
#include "core/engine/request_queue.h"
#include "core/engine/sequence.h"
#include "core/engine/token_sink.h"

namespace chorus {

// An admitted request: its sequences with their KV slots, and its generations. All slots that it
// can ever need are taken at once, so it can always run to its end; a generation's are given back
// when it finishes, the rest when the object goes. Owned by a worker and used by its thread only.
class RunningRequest {
 public:
  // REQUIRES: pending->plan.num_slots are free. `allocator`, `tokenizer` outlive the object.
  RunningRequest(std::unique_ptr<PendingRequest> pending, SlotAllocator* allocator,
                 const std::vector<int32_t>& eos_token_ids, const Tokenizer* tokenizer);
  ~RunningRequest();
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

  const Request& request() const { return pending_->request; }
  const FusionPlan& plan() const { return pending_->plan; }
  absl::Time submitted() const { return pending_->submitted; }
  TokenSink& sink() const { return *pending_->sink; }
  bool cancelled() const { return pending_->cancelled->load(std::memory_order_relaxed); }

  const Sequence& sequence(int32_t index) const { return *sequences_[index]; }
  int32_t num_generations() const { return static_cast<int32_t>(generations_.size()); }
  Generation& generation(int32_t index) { return *generations_[index]; }
  const Generation& generation(int32_t index) const { return *generations_[index]; }
  bool finished() const;

  // Takes a generation's token in; what there is to stream now, or nothing (VOTE keeps its events
  // back until all have finished, and then gives the winner's as one).
  std::optional<TokenEvent> Append(int32_t generation_index, ChosenToken token);

  PromptSummary SummarisePrompt(int32_t worker) const;
  // Complete once finished; before, what there is so far.
  FinishSummary Summarise(absl::Time now) const;

  // The worker's bookkeeping.
  absl::Time started;
  std::optional<absl::Time> first_token_time;
  int32_t model_steps = 0;

 private:
  void ReleaseSequences(const GenerationPlan& plan);
  std::vector<Answer> AnswersInCallersOrder() const;
  std::vector<int32_t> CanonicalOrder() const;
  std::optional<TokenEvent> KeepForVote(int32_t generation_index, TokenEvent event);

  std::unique_ptr<PendingRequest> pending_;
  SlotAllocator& allocator_;
  const EndTokens end_tokens_;
  std::vector<std::unique_ptr<Generation>> generations_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<TokenEvent> kept_events_;  // VOTE: one a generation
};

}  // namespace chorus
