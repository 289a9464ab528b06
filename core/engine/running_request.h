#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/cache/segment_cache.h"
#include "core/engine/generation.h"
#include "core/engine/request_queue.h"
#include "core/engine/sequence.h"
#include "core/engine/token_sink.h"

namespace chorus {

// A started request: its sequences, and its generations. It has KV space or it has none: before it
// is first admitted, and after a preemption, from which it goes on by reading again what it had.
// Owned by a worker and used by its thread only.
class RunningRequest {
 public:
  // Without KV space. `cache` and `tokenizer` outlive the object.
  RunningRequest(std::unique_ptr<PendingRequest> pending, SegmentCache* cache,
                 const std::vector<int32_t>& eos_token_ids, const Tokenizer* tokenizer);
  ~RunningRequest();
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

  // What it was made of, when it has not started and is not to: it waits again, or ends.
  static std::unique_ptr<PendingRequest> TakePending(std::unique_ptr<RunningRequest> request);

  const Request& request() const { return pending_->request; }
  const FusionPlan& plan() const { return pending_->plan; }
  absl::Time submitted() const { return pending_->submitted; }
  TokenSink& sink() const { return *pending_->sink; }
  bool cancelled() const { return pending_->cancelled->load(std::memory_order_relaxed); }

  bool is_background() const { return pending_->is_background(); }

  const PendingRequest& pending() const { return *pending_; }
  Sequence& sequence(int32_t index) { return *sequences_[index]; }
  const Sequence& sequence(int32_t index) const { return *sequences_[index]; }
  int32_t num_generations() const { return static_cast<int32_t>(generations_.size()); }
  Generation& generation(int32_t index) { return *generations_[index]; }
  const Generation& generation(int32_t index) const { return *generations_[index]; }
  bool finished() const;

  // What TakeKv would need, at most.
  KvNeed NeedOfKv() const;
  // Slots for all that is to be read again or for the first time; false, and nothing taken, if they
  // are not to be had. A generation's are given back when it finishes.
  bool TakeKv();
  // A slot for the last token of each sequence that generates; false if one is not to be had.
  bool GrowKv();
  // Gives all KV space back: what was read must be read again.
  void ReleaseKv();
  bool has_kv() const { return has_kv_; }
  // Tokens of the prompt that the cache held when the request first took KV space.
  int32_t cached_tokens() const { return cached_tokens_; }
  // Segments that it found, filled, or did not find, likewise.
  int32_t num_segments_found() const { return num_segments_found_; }
  int32_t num_segments_missed() const { return num_segments_missed_; }

  // Takes a generation's token in; what there is to stream now, or nothing (VOTE keeps its events
  // back until all have finished, and then gives the winner's as one).
  std::optional<TokenEvent> Append(int32_t generation_index, ChosenToken token,
                                   absl::Span<const AttentionProbeResult> probes);

  // The same for a request that scores: the first tokens' scores, then the others' in order.
  void TakeFirstScores(int32_t generation_index, const ChosenToken& token);
  void TakeScore(int32_t generation_index, int32_t continuation, const ChosenToken& token);

  PromptSummary SummarisePrompt(int32_t worker) const;
  // Complete once finished; before, what there is so far.
  FinishSummary Summarise(absl::Time now) const;

  // The worker's bookkeeping.
  std::optional<absl::Time> started;       // when it was first admitted
  std::optional<absl::Time> paused_since;  // while its reader is behind
  std::optional<absl::Time> first_token_time;
  int32_t model_steps = 0;

 private:
  void ReleaseSequences(const GenerationPlan& plan);
  void CountCached();
  void SummariseAnswers(FinishSummary* summary) const;
  void SummariseScores(FinishSummary* summary) const;
  template <typename Visit>
  void ForEachUnfinishedSequence(const Visit& visit) const;
  std::vector<Answer> AnswersInCallersOrder() const;
  std::vector<int32_t> CanonicalOrder() const;
  std::optional<TokenEvent> KeepForVote(int32_t generation_index, TokenEvent event);

  std::unique_ptr<PendingRequest> pending_;
  SegmentCache& cache_;
  const EndTokens end_tokens_;
  std::vector<std::unique_ptr<Generation>> generations_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<TokenEvent> kept_events_;  // VOTE: one a generation
  bool has_kv_ = false;
  bool counted_cached_ = false;
  int32_t cached_tokens_ = 0;
  int32_t num_segments_found_ = 0;
  int32_t num_segments_missed_ = 0;
};

}  // namespace chorus
