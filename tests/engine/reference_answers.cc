// The oracle of the engine's tests: every row's visible keys straight from SegmentMask.

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/cache/content_hash.h"
#include "core/engine/fusion_strategy.h"
#include "core/segment/segment_mask.h"
#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

class ReferenceSequence {
 public:
  ReferenceSequence(std::vector<int32_t> tokens, const SegmentLayout::Pieces& pieces,
                    const SegmentScaling* scaling)
      : layout_(*SegmentLayout::FromPieces(pieces)), scaling_(scaling) {
    CHECK(static_cast<int32_t>(tokens.size()) == layout_.length());
    for (int32_t token : tokens) Append(token);
    prompt_ = std::move(tokens);
  }

  void Append(int32_t token) {
    const SegmentMask mask(&layout_);
    const auto q = static_cast<int32_t>(states_.size());
    std::vector<fake_model::VisibleKey> keys;
    for (int32_t k = 0; k < q; ++k) {
      if (!mask.Allows(q, k)) continue;
      const int32_t distance = layout_.PositionOf(q) - layout_.PositionOf(k);
      keys.push_back({states_[k], distance, layout_.SegmentOf(k) >= 0});
    }
    states_.push_back(fake_model::RowState(token, mask.Allows(q, q), keys,
                                           q >= layout_.original_length() ? scaling_ : nullptr));
  }

  std::vector<float> Logits(int32_t row, int32_t vocab_size) const {
    return fake_model::LogitsOf(states_[row], vocab_size);
  }
  int32_t last_row() const { return static_cast<int32_t>(states_.size()) - 1; }
  const SegmentLayout& layout() const { return layout_; }
  const std::vector<int32_t>& prompt() const { return prompt_; }

 private:
  const SegmentLayout layout_;
  const SegmentScaling* const scaling_;
  std::vector<int32_t> prompt_;
  std::vector<uint64_t> states_;
};

void Add(const std::vector<int32_t>& from, std::vector<int32_t>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

std::vector<int32_t> CanonicalOrder(const Request& request) {
  std::vector<int32_t> order(request.prompts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const auto weight = [&](int32_t i) {
      return request.fusion.weights.empty() ? 0.0f : request.fusion.weights[i];
    };
    const auto& x = request.prompts[a];
    const auto& y = request.prompts[b];
    if (x != y) return std::pair(ContentHash(x), x) < std::pair(ContentHash(y), y);
    return weight(a) < weight(b);
  });
  return order;
}

std::vector<float> Weights(const Request& request, const std::vector<int32_t>& order) {
  double sum = 0.0;
  for (float weight : request.fusion.weights) sum += weight;
  std::vector<float> weights;
  for (int32_t i : order) {
    if (sum > 0) weights.push_back(static_cast<float>(request.fusion.weights[i] / sum));
  }
  return weights;
}

// How tokens come: from sequences in lockstep, whose last rows are combined.
struct Path {
  std::vector<ReferenceSequence> sequences;
  CombineRule rule = CombineRule::kNone;
  std::vector<float> weights;
  // The first choice, where it is another one.
  CombineRule first_rule = CombineRule::kNone;
  std::vector<float> first_weights;
  std::vector<std::vector<float>> first_rows;
};

struct Reference {
  const Request& request;
  int32_t vocab_size;

  // Appends tokens to the sequences while `next`, told of a combined row, gives one.
  void Walk(Path path,
            const std::function<std::optional<int32_t>(const std::vector<float>&)>& next) const {
    std::vector<float> combined;
    if (!path.first_rows.empty()) {
      combined = fake_model::Combine(path.first_rule, path.first_weights, path.first_rows);
    }
    while (true) {
      if (combined.empty()) {
        std::vector<std::vector<float>> rows;
        for (const auto& s : path.sequences) rows.push_back(s.Logits(s.last_row(), vocab_size));
        combined = fake_model::Combine(path.rule, path.weights, rows);
      }
      const std::optional<int32_t> token = next(std::exchange(combined, {}));
      if (!token.has_value()) return;
      for (auto& sequence : path.sequences) sequence.Append(*token);
    }
  }

  std::vector<int32_t> Generate(Path path, uint64_t seed, const std::vector<int32_t>& eos) const {
    std::vector<int32_t> prompt, generated, banned = request.stopping.stop_token_ids;
    for (const auto& sequence : path.sequences) Add(sequence.prompt(), &prompt);
    if (!request.stopping.ignore_eos) Add(eos, &banned);
    Walk(std::move(path), [&](const std::vector<float>& combined) -> std::optional<int32_t> {
      if (static_cast<int32_t>(generated.size()) == request.stopping.max_new_tokens) return {};
      TokenChoice choice;
      choice.sampling = &request.sampling;
      choice.prompt_tokens = &prompt;
      choice.generated_tokens = &generated;
      choice.draw_seed = seed;
      choice.draw_index = static_cast<int64_t>(generated.size());
      if (choice.draw_index < request.stopping.min_new_tokens) choice.banned_token_ids = &banned;
      const int32_t token = fake_model::Choose(combined, choice).token_id;
      if (std::find(banned.begin(), banned.end(), token) != banned.end()) return {};
      generated.push_back(token);
      return token;
    });
    return generated;
  }

  // token_logprobs, logprob, greedy_token_ids and is_greedy of one path.
  ContinuationScore Score(Path path, const std::vector<int32_t>& tokens) const {
    ContinuationScore score;
    size_t k = 0;
    Walk(std::move(path), [&](const std::vector<float>& combined) -> std::optional<int32_t> {
      if (k == tokens.size()) return {};
      fake_model::AppendLogprobs(combined, {tokens[k]}, &score.token_logprobs);
      score.logprob += score.token_logprobs.back();
      score.greedy_token_ids.push_back(static_cast<int32_t>(
          std::max_element(combined.begin(), combined.end()) - combined.begin()));
      return tokens[k++];
    });
    score.is_greedy = score.greedy_token_ids == tokens;
    return score;
  }

  ReferenceSequence PromptSequence(int32_t i) const {
    std::vector<int32_t> tokens = request.prefix;
    Add(request.prompts[i], &tokens);
    Add(request.suffix, &tokens);
    SegmentLayout::Pieces pieces;
    pieces.prefix_length = static_cast<int32_t>(request.prefix.size());
    pieces.segment_lengths = {static_cast<int32_t>(request.prompts[i].size())};
    pieces.position_mode = PositionMode::kSequential;
    pieces.suffix_length = static_cast<int32_t>(request.suffix.size());
    return ReferenceSequence(std::move(tokens), pieces, nullptr);
  }

  Path PromptPath(int32_t i) const { return {.sequences = {PromptSequence(i)}}; }

  Path AttentionPath() const {
    const FusionParams& fusion = request.fusion;
    std::vector<int32_t> order(request.prompts.size());
    std::iota(order.begin(), order.end(), 0);
    if (fusion.positions == PositionMode::kOverlapping && request.separator.empty()) {
      order = CanonicalOrder(request);
    }
    std::vector<int32_t> tokens = request.prefix;
    SegmentLayout::Pieces pieces;
    pieces.prefix_length = static_cast<int32_t>(request.prefix.size());
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) Add(request.separator, &tokens);
      Add(request.prompts[order[i]], &tokens);
      pieces.segment_lengths.push_back(static_cast<int32_t>(request.prompts[order[i]].size()));
    }
    Add(request.suffix, &tokens);
    pieces.separator_length = static_cast<int32_t>(request.separator.size());
    pieces.separator_policy = fusion.separators;
    pieces.position_mode = fusion.positions;
    pieces.suffix_length = static_cast<int32_t>(request.suffix.size());
    ReferenceSequence sequence(std::move(tokens), pieces,
                               fusion.scaling.has_value() ? &*fusion.scaling : nullptr);
    Path path;
    const std::vector<int32_t>& last = sequence.layout().last_own_tokens();
    if (!request.suffix.empty()) {
      path.first_rows.push_back(sequence.Logits(sequence.last_row(), vocab_size));
    } else if (fusion.first_token == FirstToken::kLastSegment) {
      const auto callers_last = static_cast<int32_t>(order.size()) - 1;
      const auto it = std::find(order.begin(), order.end(), callers_last);
      path.first_rows.push_back(sequence.Logits(last[it - order.begin()], vocab_size));
    } else {
      for (int32_t row : last) path.first_rows.push_back(sequence.Logits(row, vocab_size));
      path.first_rule = CombineRule::kLogitMean;
      path.first_weights = Weights(request, order);
    }
    path.sequences.push_back(std::move(sequence));
    return path;
  }

  Path LogitPath(CombineRule rule) const {
    const std::vector<int32_t> order = CanonicalOrder(request);
    Path path{.rule = rule, .weights = Weights(request, order)};
    for (int32_t i : order) path.sequences.push_back(PromptSequence(i));
    return path;
  }

  // Of a method that gives one answer; nothing for the others.
  std::optional<Path> FusedPath() const {
    switch (request.fusion.method) {
      case FusionMethod::kAttention:
        return AttentionPath();
      case FusionMethod::kLogitMean:
        return LogitPath(CombineRule::kLogitMean);
      case FusionMethod::kProbMean:
        return LogitPath(CombineRule::kProbMean);
      case FusionMethod::kProbMax:
        return LogitPath(CombineRule::kProbMax);
      case FusionMethod::kLogitMax:
        return LogitPath(CombineRule::kLogitMax);
      case FusionMethod::kPerPrompt:
      case FusionMethod::kVote:
        return std::nullopt;
    }
    return std::nullopt;
  }

  // The mean over prompts of the probability that each gives to the first `count` tokens of all.
  static double MeanProbability(const std::vector<ContinuationScore>& alone, size_t count) {
    double sum = 0.0;
    for (const ContinuationScore& score : alone) {
      sum += std::exp(std::accumulate(score.token_logprobs.begin(),
                                      score.token_logprobs.begin() + count, 0.0));
    }
    return sum / static_cast<double>(alone.size());
  }

  ContinuationScore ScoreOf(const std::vector<int32_t>& tokens) const {
    std::vector<ContinuationScore> alone;
    for (size_t i = 0; i < request.prompts.size(); ++i) {
      alone.push_back(Score(PromptPath(static_cast<int32_t>(i)), tokens));
    }
    ContinuationScore score;
    if (const auto path = FusedPath(); path.has_value()) {
      score = Score(*path, tokens);
    } else {
      size_t num_greedy = 0;
      for (const ContinuationScore& one : alone) num_greedy += one.is_greedy;
      for (size_t k = 0; k < tokens.size(); ++k) {
        score.token_logprobs.push_back(static_cast<float>(
            std::log(MeanProbability(alone, k + 1)) - std::log(MeanProbability(alone, k))));
      }
      score.logprob = std::log(MeanProbability(alone, tokens.size()));
      score.is_greedy = request.fusion.method == FusionMethod::kVote
                            ? num_greedy > alone.size() - num_greedy
                            : num_greedy == alone.size();
    }
    if (!request.score->prompt_logprobs) return score;
    for (const ContinuationScore& one : alone) score.prompt_logprobs.push_back(one.logprob);
    return score;
  }
};

}  // namespace

std::vector<std::vector<int32_t>> ReferenceAnswers(const Request& request,
                                                   const std::vector<int32_t>& eos_token_ids,
                                                   int32_t vocab_size) {
  const Reference reference{request, vocab_size};
  if (const auto path = reference.FusedPath(); path.has_value()) {
    return {reference.Generate(*path, request.sampling.seed, eos_token_ids)};
  }
  std::vector<std::vector<int32_t>> answers;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    answers.push_back(reference.Generate(
        reference.PromptPath(index), PromptSeed(request.sampling.seed, index), eos_token_ids));
  }
  return answers;
}

std::vector<ContinuationScore> ReferenceScores(const Request& request, int32_t vocab_size) {
  const Reference reference{request, vocab_size};
  std::vector<ContinuationScore> scores;
  for (const auto& tokens : request.score->continuations) {
    scores.push_back(reference.ScoreOf(tokens));
  }
  return scores;
}

}  // namespace chorus
