#include "core/engine/running_request.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"

#include "core/base/check.h"
#include "core/engine/continuation_scores.h"
#include "core/engine/vote.h"

namespace chorus {
RunningRequest::RunningRequest(std::unique_ptr<PendingRequest> pending, SegmentCache* cache,
                               const std::vector<int32_t>& eos_token_ids,
                               const Tokenizer* tokenizer)
    : pending_(std::move(pending)),
      cache_(*cache),
      end_tokens_(request().stopping, eos_token_ids) {
  sequences_.resize(plan().sequences.size());
  for (const GenerationPlan& generation_plan : plan().generations) {
    generations_.push_back(
        std::make_unique<Generation>(&request(), &generation_plan, &end_tokens_, tokenizer));
    for (int32_t index : generation_plan.sequence_indexes) {
      const SequencePlan& sequence = plan().sequences[index];
      sequences_[index] = std::make_unique<Sequence>(
          &sequence, &generations_.back()->token_ids(),
          Sequence::Options{
              .max_length = sequence.layout.length() + MaxNewTokens(request()),
              .split_segment_columns = sequence.scales_segments,
              .has_windows = plan().has_windows});
    }
  }
  if (request().fusion.method == FusionMethod::kVote) kept_events_.resize(generations_.size());
}

RunningRequest::~RunningRequest() { ReleaseKv(); }

std::unique_ptr<PendingRequest> RunningRequest::TakePending(
    std::unique_ptr<RunningRequest> request) {
  request->ReleaseKv();
  return std::move(request->pending_);
}

template <typename Visit>
void RunningRequest::ForEachUnfinishedSequence(const Visit& visit) const {
  for (const auto& generation : generations_) {
    if (generation->finished()) continue;
    for (int32_t index : generation->plan().sequence_indexes) visit(*sequences_[index]);
  }
}

KvNeed RunningRequest::NeedOfKv() const {
  KvNeed need;
  absl::flat_hash_set<uint64_t> counted;  // of the prefix and segments that sequences share
  ForEachUnfinishedSequence([&](const Sequence& sequence) {
    const KvNeed more = sequence.NeedOf(cache_, &counted);
    need.num_slots += more.num_slots;
    need.num_idle_slots += more.num_idle_slots;
  });
  for (const auto& generation : generations_) {
    if (generation->scoring() != nullptr) need.num_slots += generation->scoring()->NeedOfSlots();
  }
  return need;
}

bool RunningRequest::TakeKv() {
  CHECK(!has_kv_);
  has_kv_ = true;
  bool all = true;
  ForEachUnfinishedSequence([&](Sequence& sequence) { all = all && sequence.TakeKv(&cache_); });
  for (const auto& generation : generations_) {
    if (generation->scoring() != nullptr) all = all && generation->scoring()->TakeKv(&cache_);
  }
  if (!all) {
    ReleaseKv();
    return false;
  }
  if (!std::exchange(counted_cached_, true)) CountCached();
  return true;
}

void RunningRequest::CountCached() {
  absl::flat_hash_set<const CachedSegment*> seen;
  ForEachUnfinishedSequence([&](const Sequence& sequence) {
    for (size_t i = 0; i < sequence.plan().uses.size(); ++i) {
      const CachedSegment* const segment = sequence.segment(i);
      if (!seen.insert(segment).second) continue;
      cached_tokens_ += segment->num_filled();
      ++(segment->num_filled() > 0 ? num_segments_found_ : num_segments_missed_);
    }
  });
}

bool RunningRequest::GrowKv() {
  bool all = true;
  for (const auto& generation : generations_) {
    if (!generation->decodes()) continue;
    for (int32_t index : generation->plan().sequence_indexes) {
      all = all && sequences_[index]->GrowKv(&cache_);
    }
  }
  return all;
}

void RunningRequest::ReleaseKv() {
  if (!std::exchange(has_kv_, false)) return;
  for (const auto& generation : generations_) {
    ReleaseSequences(generation->plan());
    if (generation->scoring() != nullptr) generation->scoring()->ReleaseKv(&cache_);
    if (!generation->finished()) generation->Restart();
  }
}

bool RunningRequest::finished() const {
  return std::all_of(generations_.begin(), generations_.end(),
                     [](const auto& generation) { return generation->finished(); });
}

std::optional<TokenEvent> RunningRequest::Append(int32_t generation_index, ChosenToken token,
                                                 absl::Span<const AttentionProbeResult> probes) {
  Generation& generation = *generations_[generation_index];
  TokenEvent event = generation.Append(std::move(token), probes);
  if (generation.finished()) ReleaseSequences(generation.plan());
  if (!kept_events_.empty()) return KeepForVote(generation_index, std::move(event));
  if (event.text.empty() && event.token_ids.empty()) return std::nullopt;
  return event;
}

void RunningRequest::TakeFirstScores(int32_t generation_index, const ChosenToken& token) {
  Generation& generation = *generations_[generation_index];
  generation.scoring()->TakeFirst(token, &cache_);
  if (generation.finished()) ReleaseSequences(generation.plan());
}

void RunningRequest::TakeScore(int32_t generation_index, int32_t continuation,
                               const ChosenToken& token) {
  Generation& generation = *generations_[generation_index];
  generation.scoring()->Take(continuation, token, &cache_);
  if (generation.finished()) ReleaseSequences(generation.plan());
}

PromptSummary RunningRequest::SummarisePrompt(int32_t worker) const {
  PromptSummary summary;
  for (const auto& prompt : request().prompts) {
    summary.segment_tokens.push_back(static_cast<int32_t>(prompt.size()));
  }
  for (const SequencePlan& sequence : plan().sequences) {
    if (sequence.prompt_index != 0) continue;
    summary.original_length = sequence.layout.original_length();
    break;  // a companion of the fused sequence may follow
  }
  summary.prompt_tokens = plan().prompt_tokens;
  summary.cached_tokens = cached_tokens_;
  summary.worker = worker;
  return summary;
}

FinishSummary RunningRequest::Summarise(absl::Time now) const {
  FinishSummary summary;
  if (request().score.has_value()) {
    SummariseScores(&summary);
  } else {
    SummariseAnswers(&summary);
  }
  summary.prompt_tokens = plan().prompt_tokens;
  summary.cached_tokens = cached_tokens_;
  summary.model_steps = model_steps;
  summary.queue_time = started.value_or(now) - submitted();
  if (first_token_time.has_value()) summary.first_token_time = *first_token_time - submitted();
  summary.total_time = now - submitted();
  return summary;
}

void RunningRequest::SummariseScores(FinishSummary* summary) const {
  std::vector<const Generation*> generations;
  int32_t least = std::numeric_limits<int32_t>::max();
  for (const auto& generation : generations_) {
    generations.push_back(generation.get());
    least = std::min(least, generation->scoring()->num_scored());
  }
  summary->scored_tokens = least;
  if (finished()) summary->scores = CombineScores(request(), plan(), generations);
}

void RunningRequest::SummariseAnswers(FinishSummary* summary) const {
  const FusionMethod method = request().fusion.method;
  if (method == FusionMethod::kPerPrompt || method == FusionMethod::kVote) {
    summary->prompts = AnswersInCallersOrder();
    summary->answer = summary->prompts.front();
  } else {
    summary->answer = generations_.front()->answer();
  }
  if (method == FusionMethod::kVote && finished()) {
    VoteResult vote = CountVotes(summary->prompts, CanonicalOrder());
    summary->answer = summary->prompts[vote.winner];
    summary->tally = std::move(vote.tally);
  }
  for (const auto& generation : generations_) {
    summary->generated_tokens += static_cast<int32_t>(generation->token_ids().size());
  }
}

void RunningRequest::ReleaseSequences(const GenerationPlan& plan) {
  for (int32_t index : plan.sequence_indexes) sequences_[index]->ReleaseKv(&cache_);
}

std::vector<Answer> RunningRequest::AnswersInCallersOrder() const {
  std::vector<Answer> answers(generations_.size());
  for (const auto& generation : generations_) {
    answers[generation->plan().prompt_index] = generation->answer();
  }
  return answers;
}

std::vector<int32_t> RunningRequest::CanonicalOrder() const {
  std::vector<int32_t> order;
  for (const auto& generation : generations_) order.push_back(generation->plan().prompt_index);
  return order;
}

std::optional<TokenEvent> RunningRequest::KeepForVote(int32_t generation_index, TokenEvent event) {
  MergeEvent(std::move(event), &kept_events_[generation_index]);
  if (!finished()) return std::nullopt;
  const int32_t winner = CountVotes(AnswersInCallersOrder(), CanonicalOrder()).winner;
  for (size_t i = 0; i < generations_.size(); ++i) {
    if (generations_[i]->plan().prompt_index != winner) continue;
    TokenEvent& kept = kept_events_[i];
    if (!kept.text.empty() || !kept.token_ids.empty()) return std::move(kept);
  }
  return std::nullopt;
}

}  // namespace chorus
