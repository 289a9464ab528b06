#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/cache/segment_cache.h"
#include "core/engine/fusion_strategy.h"
#include "core/engine/request.h"
#include "core/engine/step_plan.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// The continuations of one generation, in place of its answer. Each is read behind the prompt by
// itself: a branch of every one of the generation's sequences, which shares the prompt's slots and
// has slots of its own for its tokens. A token is scored from the row before it: the first ones of
// all continuations in one choice from the prompt's last rows, the others in one choice each. So the
// last token is not read. Rows may be read in pieces of any size, side by side with those of other
// continuations; a row sees its own branch only, so neither changes a score by a bit.
//
// Owned by its Generation; worker thread only.
class Scoring {
 public:
  // What is known of one continuation, token by token.
  struct Scores {
    std::vector<float> token_logprobs;
    std::vector<int32_t> greedy_token_ids;
    // One list a row of GenerationPlan::first_compared_rows, each one value a token.
    std::vector<std::vector<float>> row_logprobs;
  };

  // Both must outlive the object.
  Scoring(const ScoreParams* params, const GenerationPlan* plan);

  int32_t num_continuations() const { return static_cast<int32_t>(branches_.size()); }
  const std::vector<int32_t>& token_ids(int32_t continuation) const {
    return params_.continuations[continuation];
  }
  const Scores& scores(int32_t continuation) const { return branches_[continuation].scores; }

  // False until the prompt's last rows have scored the first tokens.
  bool has_first() const { return has_first_; }
  // Of a continuation's tokens, those whose rows are still to run, before or after the first choice.
  TokenRange RowsLeft(int32_t continuation) const;
  bool finished() const;
  // Tokens scored so far.
  int32_t num_scored() const;

  // Slots of the tokens that are read, in the branch of the plan's sequence_indexes[i]; while it has
  // KV space.
  absl::Span<const int32_t> slots(int32_t continuation, size_t i) const;
  int64_t NeedOfSlots() const;
  // Slots for all that are not finished. False, and nothing taken, if there is no room.
  bool TakeKv(SegmentCache* cache);
  void ReleaseKv(SegmentCache* cache);

  // Adds to a choice what is to be scored from its rows: the first tokens, or one token.
  void AddFirstTargets(TokenChoice* choice) const;
  void AddTarget(int32_t continuation, int32_t token_index, TokenChoice* choice) const;
  // Takes the results in, of each continuation in the order of its tokens. One that is finished
  // gives its slots back.
  void TakeFirst(const ChosenToken& token, SegmentCache* cache);
  void Take(int32_t continuation, const ChosenToken& token, SegmentCache* cache);

  // The branches have lost their KV space: what is not finished is read, and scored, again.
  void Restart();

 private:
  struct Branch {
    Scores scores;
    std::vector<int32_t> slots;  // [sequences, tokens - 1]
  };

  int32_t NumRows(int32_t continuation) const {
    return static_cast<int32_t>(token_ids(continuation).size()) - 1;
  }
  bool finished(int32_t continuation) const {
    return scores(continuation).token_logprobs.size() == token_ids(continuation).size();
  }
  // Appends target `index` of the choice's `num_targets`.
  void Append(const ChosenToken& token, size_t index, size_t num_targets, Branch* branch);
  void ReleaseIfFinished(int32_t continuation, SegmentCache* cache);

  const ScoreParams& params_;
  const GenerationPlan& plan_;
  std::vector<Branch> branches_;  // one a continuation
  bool has_first_ = false;
};

}  // namespace chorus
