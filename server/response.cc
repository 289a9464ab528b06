#include "server/response.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace chorus {
namespace {

std::vector<int32_t> OneId(int32_t id) { return {id}; }

void FillAnswer(Answer answer, int32_t index, v1::PromptAnswer* proto) {
  proto->set_index(index);
  proto->set_reason(static_cast<v1::FinishReason>(answer.reason));
  proto->set_stop(std::move(answer.stop));
  proto->set_text(std::move(answer.text));
  proto->mutable_token_ids()->Add(answer.token_ids.begin(), answer.token_ids.end());
  proto->set_mean_logprob(answer.mean_logprob);
}

}  // namespace

void FillPromptInfo(const PromptSummary& summary, const RequestRecord& request,
                    v1::PromptInfo* info) {
  info->set_request_id(request.id);
  info->set_seed(request.seed);
  info->mutable_segment_tokens()->Add(summary.segment_tokens.begin(), summary.segment_tokens.end());
  info->set_original_length(summary.original_length);
  info->set_prompt_tokens(summary.prompt_tokens);
  info->set_cached_tokens(summary.cached_tokens);
  info->set_worker(summary.worker);
}

namespace {

void Fill(const Attribution& attribution, v1::Attribution* proto) {
  proto->set_prefix(attribution.prefix);
  proto->mutable_segments()->Add(attribution.segments.begin(), attribution.segments.end());
  proto->set_separators(attribution.separators);
  proto->set_suffix(attribution.suffix);
  proto->set_generated(attribution.generated);
}

void Fill(const TokenEvent& event, const Tokenizer& tokenizer, v1::TokenChunk* chunk) {
  chunk->set_text(event.text);
  chunk->mutable_token_ids()->Add(event.token_ids.begin(), event.token_ids.end());
  chunk->mutable_logprobs()->Add(event.logprobs.begin(), event.logprobs.end());
  for (const std::vector<TokenLogprob>& alternatives : event.top_logprobs) {
    v1::TopLogprobs* const top = chunk->add_top_logprobs();
    for (const TokenLogprob& alternative : alternatives) {
      v1::TokenLogprob* const entry = top->add_entries();
      entry->set_token_id(alternative.token_id);
      entry->set_text(tokenizer.Decode(OneId(alternative.token_id), /*skip_special=*/false));
      entry->set_logprob(alternative.logprob);
    }
  }
  for (const Attribution& attribution : event.attribution) {
    Fill(attribution, chunk->add_attribution());
  }
  chunk->mutable_disagreement()->Add(event.disagreement.begin(), event.disagreement.end());
  if (event.prompt_index >= 0) chunk->set_prompt_index(event.prompt_index);
}

}  // namespace

void FillFinish(FinishSummary summary, v1::FinishInfo* finish) {
  finish->set_reason(static_cast<v1::FinishReason>(summary.answer.reason));
  finish->set_stop(std::move(summary.answer.stop));
  finish->set_text(std::move(summary.answer.text));
  finish->mutable_token_ids()->Add(summary.answer.token_ids.begin(),
                                   summary.answer.token_ids.end());
  FillUsage(summary, finish->mutable_usage());
  FillTiming(summary, finish->mutable_timing());
  for (size_t i = 0; i < summary.prompts.size(); ++i) {
    FillAnswer(std::move(summary.prompts[i]), static_cast<int32_t>(i), finish->add_prompts());
  }
  for (VoteTally& tally : summary.tally) {
    v1::VoteCount* const count = finish->add_tally();
    count->set_answer(std::move(tally.answer));
    count->set_count(tally.count);
    count->mutable_prompt_indexes()->Add(tally.prompt_indexes.begin(), tally.prompt_indexes.end());
  }
}

void FillUsage(const FinishSummary& summary, v1::Usage* usage) {
  usage->set_prompt_tokens(summary.prompt_tokens);
  usage->set_cached_tokens(summary.cached_tokens);
  usage->set_generated_tokens(summary.generated_tokens);
  usage->set_model_steps(summary.model_steps);
  usage->set_scored_tokens(summary.scored_tokens);
}

void FillTiming(const FinishSummary& summary, v1::Timing* timing) {
  timing->set_queue_seconds(absl::ToDoubleSeconds(summary.queue_time));
  timing->set_first_token_seconds(absl::ToDoubleSeconds(summary.first_token_time));
  timing->set_total_seconds(absl::ToDoubleSeconds(summary.total_time));
}

void FillResponse(StreamEvent event, const RequestRecord& request, const Tokenizer& tokenizer,
                  v1::GenerateResponse* response) {
  if (const auto* start = std::get_if<PromptSummary>(&event)) {
    response->Clear();
    FillPromptInfo(*start, request, response->mutable_prompt_info());
  } else if (const auto* tokens = std::get_if<TokenEvent>(&event)) {
    v1::TokenChunk* const chunk = response->mutable_chunk();
    chunk->Clear();
    Fill(*tokens, tokenizer, chunk);
  } else {
    response->Clear();
    FillFinish(std::get<FinishSummary>(std::move(event)), response->mutable_finish());
  }
}

}  // namespace chorus
