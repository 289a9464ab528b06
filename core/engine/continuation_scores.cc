#include "core/engine/continuation_scores.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>

namespace chorus {
namespace {

double Sum(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// ln of the mean of exp(x). In ascending order, so that the order of the values does not matter.
double LogMeanExp(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const double largest = values.back();
  if (!std::isfinite(largest)) return largest;
  double sum = 0.0;
  for (const double value : values) sum += std::exp(value - largest);
  return largest + std::log(sum / static_cast<double>(values.size()));
}

ContinuationScore FusedScore(const Request& request, const FusionPlan& plan,
                             const Generation& generation, int32_t continuation) {
  const Scoring::Scores& from = generation.scoring()->scores(continuation);
  ContinuationScore score;
  score.token_logprobs = from.token_logprobs;
  score.greedy_token_ids = from.greedy_token_ids;
  score.logprob = Sum(from.token_logprobs);
  score.is_greedy = from.greedy_token_ids == generation.scoring()->token_ids(continuation);
  if (from.row_logprobs.empty()) return score;
  score.prompt_logprobs.resize(request.prompts.size());
  for (size_t i = 0; i < from.row_logprobs.size(); ++i) {
    const int32_t sequence = generation.plan().first_compared_rows[i].sequence_index;
    score.prompt_logprobs[plan.sequences[sequence].prompt_index] = Sum(from.row_logprobs[i]);
  }
  return score;
}

ContinuationScore MixedScore(const Request& request,
                             absl::Span<const Generation* const> generations,
                             int32_t continuation) {
  ContinuationScore score;
  std::vector<double> so_far(generations.size(), 0.0);  // what each prompt gives to the tokens before
  const size_t num_tokens = request.score->continuations[continuation].size();
  for (size_t k = 0; k < num_tokens; ++k) {
    for (size_t i = 0; i < generations.size(); ++i) {
      so_far[i] += generations[i]->scoring()->scores(continuation).token_logprobs[k];
    }
    const double before = score.logprob;
    score.logprob = LogMeanExp(so_far);
    // What no prompt can say stays impossible: minus infinity, not a difference of infinities.
    score.token_logprobs.push_back(std::isinf(before) ? -std::numeric_limits<float>::infinity()
                                                      : static_cast<float>(score.logprob - before));
  }
  if (request.score->prompt_logprobs) score.prompt_logprobs.resize(generations.size());
  size_t num_greedy = 0;
  for (size_t i = 0; i < generations.size(); ++i) {
    const Scoring& scoring = *generations[i]->scoring();
    if (request.score->prompt_logprobs) {
      score.prompt_logprobs[generations[i]->plan().prompt_index] = so_far[i];
    }
    if (scoring.scores(continuation).greedy_token_ids == scoring.token_ids(continuation)) {
      ++num_greedy;
    }
  }
  score.is_greedy = request.fusion.method == FusionMethod::kVote
                        ? 2 * num_greedy > generations.size()
                        : num_greedy == generations.size();
  return score;
}

}  // namespace

std::vector<ContinuationScore> CombineScores(const Request& request, const FusionPlan& plan,
                                             absl::Span<const Generation* const> generations) {
  const FusionMethod method = request.fusion.method;
  const bool mixes = method == FusionMethod::kPerPrompt || method == FusionMethod::kVote;
  const auto num_continuations = static_cast<int32_t>(request.score->continuations.size());
  std::vector<ContinuationScore> scores;
  for (int32_t i = 0; i < num_continuations; ++i) {
    scores.push_back(mixes ? MixedScore(request, generations, i)
                           : FusedScore(request, plan, *generations.front(), i));
  }
  return scores;
}

}  // namespace chorus
