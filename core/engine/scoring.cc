#include "core/engine/scoring.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace chorus {

Scoring::Scoring(const ScoreParams* params, const GenerationPlan* plan)
    : params_(*params), plan_(*plan), branches_(params_.continuations.size()) {
  for (Branch& branch : branches_) branch.scores.row_logprobs.resize(plan_.first_compared_rows.size());
}

TokenRange Scoring::RowsLeft(int32_t continuation) const {
  const auto num_scored = static_cast<int32_t>(scores(continuation).token_logprobs.size());
  return {std::max(num_scored, 1) - 1, NumRows(continuation)};
}

bool Scoring::finished() const {
  for (int32_t i = 0; i < num_continuations(); ++i) {
    if (!finished(i)) return false;
  }
  return true;
}

int32_t Scoring::num_scored() const {
  size_t count = 0;
  for (const Branch& branch : branches_) count += branch.scores.token_logprobs.size();
  return static_cast<int32_t>(count);
}

absl::Span<const int32_t> Scoring::slots(int32_t continuation, size_t i) const {
  const size_t num_rows = NumRows(continuation);
  return absl::MakeConstSpan(branches_[continuation].slots).subspan(i * num_rows, num_rows);
}

int64_t Scoring::NeedOfSlots() const {
  int64_t count = 0;
  for (int32_t i = 0; i < num_continuations(); ++i) {
    if (!finished(i)) count += NumRows(i);
  }
  return count * static_cast<int64_t>(plan_.sequence_indexes.size());
}

bool Scoring::TakeKv(SegmentCache* cache) {
  const auto num_sequences = static_cast<int32_t>(plan_.sequence_indexes.size());
  for (int32_t i = 0; i < num_continuations(); ++i) {
    if (finished(i) || NumRows(i) == 0) continue;
    auto slots = cache->Allocate(num_sequences * NumRows(i));
    if (!slots.ok()) {
      ReleaseKv(cache);
      return false;
    }
    branches_[i].slots = *std::move(slots);
  }
  return true;
}

void Scoring::ReleaseKv(SegmentCache* cache) {
  for (Branch& branch : branches_) {
    cache->Free(branch.slots);
    branch.slots.clear();
  }
}

void Scoring::AddFirstTargets(TokenChoice* choice) const {
  for (const auto& token_ids : params_.continuations) choice->targets.push_back(token_ids.front());
}

void Scoring::AddTarget(int32_t continuation, int32_t token_index, TokenChoice* choice) const {
  choice->targets = {token_ids(continuation)[token_index]};
}

void Scoring::TakeFirst(const ChosenToken& token, SegmentCache* cache) {
  CHECK(!has_first_);
  has_first_ = true;
  for (int32_t i = 0; i < num_continuations(); ++i) {
    Append(token, i, branches_.size(), &branches_[i]);
    ReleaseIfFinished(i, cache);
  }
}

void Scoring::Take(int32_t continuation, const ChosenToken& token, SegmentCache* cache) {
  CHECK(has_first_ && !finished(continuation));
  Append(token, /*index=*/0, /*num_targets=*/1, &branches_[continuation]);
  ReleaseIfFinished(continuation, cache);
}

void Scoring::Restart() {
  for (int32_t i = 0; i < num_continuations(); ++i) {
    if (!has_first_ || finished(i)) continue;
    Scores& scores = branches_[i].scores;
    scores.token_logprobs.resize(1);
    scores.greedy_token_ids.resize(1);
    for (auto& row : scores.row_logprobs) row.resize(1);
  }
}

void Scoring::Append(const ChosenToken& token, size_t index, size_t num_targets, Branch* branch) {
  Scores& scores = branch->scores;
  CHECK(token.target_logprobs.size() == (1 + scores.row_logprobs.size()) * num_targets);
  scores.token_logprobs.push_back(token.target_logprobs[index]);
  scores.greedy_token_ids.push_back(token.token_id);
  for (size_t row = 0; row < scores.row_logprobs.size(); ++row) {
    scores.row_logprobs[row].push_back(token.target_logprobs[(1 + row) * num_targets + index]);
  }
}

void Scoring::ReleaseIfFinished(int32_t continuation, SegmentCache* cache) {
  if (!finished(continuation)) return;
  Branch& branch = branches_[continuation];
  cache->Free(branch.slots);
  branch.slots.clear();
}

}  // namespace chorus
