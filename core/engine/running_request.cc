#include "core/engine/running_request.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/engine/vote.h"

namespace chorus {
namespace {

void MergeEvent(TokenEvent event, TokenEvent* into) {
  into->text += event.text;
  into->token_ids.insert(into->token_ids.end(), event.token_ids.begin(), event.token_ids.end());
  into->logprobs.insert(into->logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  for (auto& list : event.top_logprobs) into->top_logprobs.push_back(std::move(list));
}

}  // namespace

RunningRequest::RunningRequest(std::unique_ptr<PendingRequest> pending, SlotAllocator* allocator,
                               const std::vector<int32_t>& eos_token_ids,
                               const Tokenizer* tokenizer)
    : pending_(std::move(pending)),
      allocator_(*allocator),
      end_tokens_(request().stopping, eos_token_ids) {
  sequences_.resize(plan().sequences.size());
  for (const GenerationPlan& generation_plan : plan().generations) {
    generations_.push_back(
        std::make_unique<Generation>(&request(), &generation_plan, &end_tokens_, tokenizer));
    for (int32_t index : generation_plan.sequence_indexes) {
      const SequencePlan& sequence_plan = plan().sequences[index];
      const int32_t length = sequence_plan.layout.length() + request().stopping.max_new_tokens;
      // The shared prefix is the first sequence's; the others refer to it.
      std::vector<int32_t> slots;
      if (index > 0) {
        const std::vector<int32_t>& first = sequences_[0]->slots();
        slots.assign(first.begin(), first.begin() + plan().shared_prefix);
        allocator_.Ref(slots);
      }
      auto own = allocator_.Allocate(length - static_cast<int32_t>(slots.size()));
      CHECK(own.ok());
      slots.insert(slots.end(), own->begin(), own->end());
      sequences_[index] =
          std::make_unique<Sequence>(&sequence_plan, &generations_.back()->token_ids(),
                                     std::move(slots), plan().scales_segments);
    }
  }
  if (request().fusion.method == FusionMethod::kVote) kept_events_.resize(generations_.size());
}

RunningRequest::~RunningRequest() {
  for (const GenerationPlan& generation_plan : plan().generations) {
    ReleaseSequences(generation_plan);
  }
}

bool RunningRequest::finished() const {
  return std::all_of(generations_.begin(), generations_.end(),
                     [](const auto& generation) { return generation->finished(); });
}

std::optional<TokenEvent> RunningRequest::Append(int32_t generation_index, ChosenToken token) {
  Generation& generation = *generations_[generation_index];
  TokenEvent event = generation.Append(std::move(token));
  if (generation.finished()) ReleaseSequences(generation.plan());
  if (!kept_events_.empty()) return KeepForVote(generation_index, std::move(event));
  if (event.text.empty() && event.token_ids.empty()) return std::nullopt;
  return event;
}

PromptSummary RunningRequest::SummarisePrompt(int32_t worker) const {
  PromptSummary summary;
  for (const auto& prompt : request().prompts) {
    summary.segment_tokens.push_back(static_cast<int32_t>(prompt.size()));
  }
  for (const SequencePlan& sequence : plan().sequences) {
    if (sequence.prompt_index == 0) summary.original_length = sequence.original_length;
  }
  summary.prompt_tokens = plan().prompt_tokens;
  summary.worker = worker;
  return summary;
}

FinishSummary RunningRequest::Summarise(absl::Time now) const {
  FinishSummary summary;
  const FusionMethod method = request().fusion.method;
  if (method == FusionMethod::kPerPrompt || method == FusionMethod::kVote) {
    summary.prompts = AnswersInCallersOrder();
    summary.answer = summary.prompts.front();
  } else {
    summary.answer = generations_.front()->answer();
  }
  if (method == FusionMethod::kVote && finished()) {
    VoteResult vote = CountVotes(summary.prompts, CanonicalOrder());
    summary.answer = summary.prompts[vote.winner];
    summary.tally = std::move(vote.tally);
  }
  summary.prompt_tokens = plan().prompt_tokens;
  for (const auto& generation : generations_) {
    summary.generated_tokens += static_cast<int32_t>(generation->token_ids().size());
  }
  summary.model_steps = model_steps;
  summary.queue_time = started - submitted();
  if (first_token_time.has_value()) summary.first_token_time = *first_token_time - submitted();
  summary.total_time = now - submitted();
  return summary;
}

void RunningRequest::ReleaseSequences(const GenerationPlan& plan) {
  for (int32_t index : plan.sequence_indexes) allocator_.Unref(sequences_[index]->ReleaseSlots());
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
