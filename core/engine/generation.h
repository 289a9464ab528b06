#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/engine/fusion_strategy.h"
#include "core/engine/request.h"
#include "core/engine/scoring.h"
#include "core/engine/step_plan.h"
#include "core/engine/token_sink.h"
#include "core/text/detokenizer.h"
#include "core/text/stop_checker.h"
#include "core/text/tokenizer.h"

namespace chorus {

// The tokens that end a request's answers.
struct EndTokens {
  // `eos_token_ids` are the model's; with ignore_eos they are ordinary tokens.
  EndTokens(const StoppingParams& stopping, const std::vector<int32_t>& eos_token_ids);

  std::optional<FinishReason> ReasonOf(int32_t token_id) const;

  std::vector<int32_t> eos;
  std::vector<int32_t> stop;
  std::vector<int32_t> all;  // what may not be drawn before min_new_tokens
};

// One answer in the making: how many of its rows have run, the tokens so far, their text, and
// whether it has ended. Or, of a request that scores, the continuations of one: then there is no
// answer, and `scoring()` holds what becomes of them. Owned by its RunningRequest; worker thread only.
class Generation {
 public:
  // All must outlive the generation.
  Generation(const Request* request, const GenerationPlan* plan, const EndTokens* end_tokens,
             const Tokenizer* tokenizer);

  const GenerationPlan& plan() const { return plan_; }

  // Its sequences' own rows that must run before the next token can be chosen from their last rows:
  // early ones, of which num_early_rows_left() still have to run, then, for the first token, the
  // plan's final_rows, which give it. The segments that the sequences use come before all of them.
  const std::vector<SequenceRows>& early_rows() const { return early_rows_; }
  int64_t num_early_rows_left() const { return num_early_rows_ - num_early_rows_done_; }
  int64_t num_early_rows_done() const { return num_early_rows_done_; }
  int64_t num_final_rows() const { return awaits_first_token() ? num_final_rows_ : 0; }
  // True while rows of the prompt (or, after a preemption, of what was generated) are to run.
  bool reading() const { return reading_; }
  // True if its next row is that of the token it has generated last.
  bool decodes() const { return !finished() && !reading_ && scoring_ == nullptr; }
  bool awaits_first_token() const {
    return scoring_ != nullptr ? !scoring_->has_first() : answer_.token_ids.empty();
  }
  void Advance(int64_t num_early_rows, bool final_rows);
  // Forgets what has run, as its sequences have lost their KV space: prompt and generated tokens
  // are to be read again, to the same bits. REQUIRES: !finished().
  void Restart();

  // The next choice but for its rows.
  TokenChoice NextChoice() const;
  // The choice that scores a continuation's token, not its first one, likewise.
  TokenChoice ScoringChoice(int32_t continuation, int32_t token_index) const;

  // Null unless the request scores.
  Scoring* scoring() { return scoring_.get(); }
  const Scoring* scoring() const { return scoring_.get(); }

  // How many rows of the next choice are probed: all that are combined, or none. And the probe of
  // one of them, `row` of the step.
  int32_t num_probes() const;
  AttentionProbe NextProbe(int32_t row) const;

  // Takes the chosen token in, with the results of its num_probes() probes, and says what there is
  // to stream: nothing (text and token_ids are empty) for an end token without held-back text.
  // REQUIRES: !finished(), and it does not score.
  TokenEvent Append(ChosenToken token, absl::Span<const AttentionProbeResult> probes);

  bool finished() const { return scoring_ != nullptr ? scoring_->finished() : finished_; }
  const std::vector<int32_t>& token_ids() const { return answer_.token_ids; }
  // Complete once finished; before, what there is so far.
  Answer answer() const;

  // When its last token came; worker's bookkeeping.
  std::optional<absl::Time> last_token_time;

 private:
  // A choice by the rule for the first token, or for later ones.
  TokenChoice ChoiceBy(bool is_first) const;
  // Whether ExplainParams asks for the rows of the next token.
  bool explains_next() const;
  void AddExtras(ChosenToken token, absl::Span<const AttentionProbeResult> probes,
                 TokenEvent* event) const;
  void Finish(FinishReason reason, std::string stop);
  // Passes text on through the stop checker; false once a stop string has ended the answer.
  bool AddText(std::string_view text, std::string* emitted);
  void FlushText(std::string* emitted);

  const Request& request_;
  const GenerationPlan& plan_;
  const EndTokens& end_tokens_;
  const Tokenizer& tokenizer_;
  const int64_t num_final_rows_;
  std::vector<SequenceRows> early_rows_;
  int64_t num_early_rows_ = 0;
  int64_t num_early_rows_done_ = 0;
  bool reading_ = true;
  const std::unique_ptr<Scoring> scoring_;

  Detokenizer detokenizer_;
  StopChecker stop_checker_;
  Answer answer_;
  double sum_logprob_ = 0.0;
  bool finished_ = false;
};

}  // namespace chorus
