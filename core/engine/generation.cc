#include "core/engine/generation.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/engine/attention_units.h"

namespace chorus {
namespace {

bool Contains(const std::vector<int32_t>& token_ids, int32_t token_id) {
  return std::find(token_ids.begin(), token_ids.end(), token_id) != token_ids.end();
}

int64_t CountRows(const std::vector<SequenceRows>& pieces) {
  int64_t count = 0;
  for (const SequenceRows& piece : pieces) count += piece.rows.length();
  return count;
}

}  // namespace

EndTokens::EndTokens(const StoppingParams& stopping, const std::vector<int32_t>& eos_token_ids)
    : stop(stopping.stop_token_ids) {
  if (!stopping.ignore_eos) eos = eos_token_ids;
  all = eos;
  all.insert(all.end(), stop.begin(), stop.end());
}

std::optional<FinishReason> EndTokens::ReasonOf(int32_t token_id) const {
  if (Contains(eos, token_id)) return FinishReason::kEos;
  if (Contains(stop, token_id)) return FinishReason::kStopToken;
  return std::nullopt;
}

Generation::Generation(const Request* request, const GenerationPlan* plan,
                       const EndTokens* end_tokens, const Tokenizer* tokenizer)
    : request_(*request),
      plan_(*plan),
      end_tokens_(*end_tokens),
      tokenizer_(*tokenizer),
      num_final_rows_(CountRows(plan_.final_rows)),
      scoring_(request_.score.has_value() ? std::make_unique<Scoring>(&*request_.score, &plan_)
                                          : nullptr),
      detokenizer_(tokenizer, /*skip_special_tokens=*/true),
      stop_checker_(request_.stopping.stop, request_.stopping.include_stop) {
  Restart();
}

void Generation::Advance(int64_t num_early_rows, bool final_rows) {
  CHECK(reading_ && num_early_rows <= num_early_rows_left());
  num_early_rows_done_ += num_early_rows;
  CHECK(!final_rows || (num_early_rows_left() == 0 && awaits_first_token()));
  reading_ = awaits_first_token() ? !final_rows : num_early_rows_left() > 0;
}

void Generation::Restart() {
  CHECK(!finished());
  early_rows_ = plan_.early_rows;
  if (!awaits_first_token()) {
    early_rows_.insert(early_rows_.end(), plan_.final_rows.begin(), plan_.final_rows.end());
    // All generated tokens but the last, whose row gives the next one.
    const auto num_generated = static_cast<int32_t>(answer_.token_ids.size());
    for (size_t i = 0; num_generated > 1 && i < plan_.sequence_indexes.size(); ++i) {
      const int32_t begin = plan_.prompt_lengths[i];
      early_rows_.push_back({plan_.sequence_indexes[i], {begin, begin + num_generated - 1}});
    }
  }
  num_early_rows_ = CountRows(early_rows_);
  num_early_rows_done_ = 0;
  reading_ = true;
  if (scoring_ != nullptr) scoring_->Restart();
}

TokenChoice Generation::ChoiceBy(bool is_first) const {
  TokenChoice choice;
  choice.rule = is_first ? plan_.first_rule : plan_.rule;
  choice.weights = is_first ? plan_.first_weights : plan_.weights;
  choice.sampling = &request_.sampling;
  choice.prompt_tokens = &plan_.prompt_tokens;
  choice.generated_tokens = &answer_.token_ids;
  return choice;
}

TokenChoice Generation::ScoringChoice(int32_t continuation, int32_t token_index) const {
  TokenChoice choice = ChoiceBy(/*is_first=*/false);
  scoring_->AddTarget(continuation, token_index, &choice);
  return choice;
}

TokenChoice Generation::NextChoice() const {
  TokenChoice choice = ChoiceBy(awaits_first_token());
  if (scoring_ != nullptr) {
    scoring_->AddFirstTargets(&choice);
    return choice;
  }
  const auto num_generated = static_cast<int64_t>(token_ids().size());
  if (num_generated < request_.stopping.min_new_tokens && !end_tokens_.all.empty()) {
    choice.banned_token_ids = &end_tokens_.all;
  }
  choice.draw_seed = plan_.draw_seed;
  choice.draw_index = num_generated;
  choice.top_logprobs = request_.response.top_logprobs;
  return choice;
}

bool Generation::explains_next() const {
  if (!request_.explain.has_value()) return false;
  const std::vector<int32_t>& steps = request_.explain->steps;
  return std::binary_search(steps.begin(), steps.end(), static_cast<int32_t>(token_ids().size()));
}

int32_t Generation::num_probes() const {
  if (!request_.response.attribution && !explains_next()) return 0;
  return static_cast<int32_t>(awaits_first_token() ? plan_.first_rows.size()
                                                   : plan_.num_combined());
}

AttentionProbe Generation::NextProbe(int32_t row) const {
  AttentionProbe probe = {.row = row, .units = &plan_.key_units};
  if (explains_next()) {
    probe.layers = request_.explain->layers;
    probe.heads = request_.explain->heads;
  }
  return probe;
}

TokenEvent Generation::Append(ChosenToken token, absl::Span<const AttentionProbeResult> probes) {
  CHECK(!finished_ && scoring_ == nullptr);
  TokenEvent event;
  if (request_.fusion.method == FusionMethod::kPerPrompt) event.prompt_index = plan_.prompt_index;
  if (const auto reason = end_tokens_.ReasonOf(token.token_id); reason.has_value()) {
    FlushText(&event.text);
    if (!finished_) Finish(*reason, tokenizer_.IdToToken(token.token_id).value_or(""));
    return event;
  }
  const int32_t token_id = token.token_id;
  sum_logprob_ += token.logprob;
  AddExtras(std::move(token), probes, &event);
  answer_.token_ids.push_back(token_id);
  if (!AddText(detokenizer_.Append(token_id), &event.text)) return event;
  if (static_cast<int64_t>(answer_.token_ids.size()) >= request_.stopping.max_new_tokens) {
    FlushText(&event.text);
    if (!finished_) Finish(FinishReason::kLength, "");
  }
  return event;
}

// All that an event says of a token but its text. REQUIRES: the token is not appended yet.
void Generation::AddExtras(ChosenToken token, absl::Span<const AttentionProbeResult> probes,
                           TokenEvent* event) const {
  const ResponseParams& wanted = request_.response;
  event->token_ids = {token.token_id};
  event->logprobs = {token.logprob};
  if (wanted.top_logprobs > 0) event->top_logprobs.push_back(std::move(token.top_logprobs));
  if (wanted.prompt_disagreement) event->disagreement = {token.disagreement};
  if (wanted.attribution) event->attribution.push_back(MeanAttribution(probes));
  if (explains_next()) {
    event->attention_steps.push_back(MeanStep(static_cast<int32_t>(token_ids().size()), probes));
  }
}

Answer Generation::answer() const {
  Answer answer = answer_;
  if (!answer.token_ids.empty()) {
    answer.mean_logprob = sum_logprob_ / static_cast<double>(answer.token_ids.size());
  }
  return answer;
}

void Generation::Finish(FinishReason reason, std::string stop) {
  answer_.reason = reason;
  answer_.stop = std::move(stop);
  finished_ = true;
}

bool Generation::AddText(std::string_view text, std::string* emitted) {
  if (text.empty()) return true;
  StopChecker::Result result = stop_checker_.Push(text);
  answer_.text += result.emit;
  *emitted += result.emit;
  if (!result.matched_stop_index.has_value()) return true;
  Finish(FinishReason::kStopString, request_.stopping.stop[*result.matched_stop_index]);
  return false;
}

void Generation::FlushText(std::string* emitted) {
  if (!AddText(detokenizer_.Flush(), emitted)) return;
  const std::string rest = stop_checker_.Flush();
  answer_.text += rest;
  *emitted += rest;
}

}  // namespace chorus
