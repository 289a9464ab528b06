// The oracle of the engine's tests: every row's visible keys straight from SegmentMask.

#include <algorithm>
#include <numeric>

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

struct Reference {
  const Request& request;
  const std::vector<int32_t>& eos;
  int32_t vocab_size;

  using FirstChoice = std::function<void(TokenChoice*, std::vector<std::vector<float>>*)>;

  // Generates from sequences in lockstep; `first` sets rule, weights and rows of the first choice.
  std::vector<int32_t> Generate(std::vector<ReferenceSequence> sequences, CombineRule rule,
                                const std::vector<float>& weights, uint64_t seed,
                                const FirstChoice& first) const {
    std::vector<int32_t> prompt, generated, banned = request.stopping.stop_token_ids;
    for (const auto& sequence : sequences) Add(sequence.prompt(), &prompt);
    if (!request.stopping.ignore_eos) Add(eos, &banned);
    while (static_cast<int32_t>(generated.size()) < request.stopping.max_new_tokens) {
      TokenChoice choice;
      choice.rule = rule;
      choice.weights = weights;
      std::vector<std::vector<float>> rows;
      if (generated.empty() && first) {
        first(&choice, &rows);
      } else {
        for (const auto& s : sequences) rows.push_back(s.Logits(s.last_row(), vocab_size));
      }
      choice.sampling = &request.sampling;
      choice.prompt_tokens = &prompt;
      choice.generated_tokens = &generated;
      choice.draw_seed = seed;
      choice.draw_index = static_cast<int64_t>(generated.size());
      if (choice.draw_index < request.stopping.min_new_tokens) choice.banned_token_ids = &banned;
      const int32_t token =
          fake_model::Choose(fake_model::Combine(choice.rule, choice.weights, rows), choice)
              .token_id;
      if (std::find(banned.begin(), banned.end(), token) != banned.end()) break;
      generated.push_back(token);
      for (auto& sequence : sequences) sequence.Append(token);
    }
    return generated;
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

  std::vector<int32_t> Attention() const {
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
    const ReferenceSequence sequence(std::move(tokens), pieces,
                                     fusion.scaling.has_value() ? &*fusion.scaling : nullptr);
    const auto first = [&](TokenChoice* choice, std::vector<std::vector<float>>* rows) {
      const std::vector<int32_t>& last = sequence.layout().last_own_tokens();
      if (!request.suffix.empty()) {
        rows->push_back(sequence.Logits(sequence.last_row(), vocab_size));
      } else if (fusion.first_token == FirstToken::kLastSegment) {
        const auto callers_last = static_cast<int32_t>(order.size()) - 1;
        const auto it = std::find(order.begin(), order.end(), callers_last);
        rows->push_back(sequence.Logits(last[it - order.begin()], vocab_size));
      } else {
        for (int32_t row : last) rows->push_back(sequence.Logits(row, vocab_size));
        choice->rule = CombineRule::kLogitMean;
        choice->weights = Weights(request, order);
      }
    };
    return Generate({sequence}, CombineRule::kNone, {}, request.sampling.seed, first);
  }

  std::vector<int32_t> Logits(CombineRule rule) const {
    const std::vector<int32_t> order = CanonicalOrder(request);
    std::vector<ReferenceSequence> sequences;
    for (int32_t i : order) sequences.push_back(PromptSequence(i));
    return Generate(std::move(sequences), rule, Weights(request, order), request.sampling.seed, {});
  }
};

}  // namespace

std::vector<std::vector<int32_t>> ReferenceAnswers(const Request& request,
                                                   const std::vector<int32_t>& eos_token_ids,
                                                   int32_t vocab_size) {
  const Reference reference{request, eos_token_ids, vocab_size};
  switch (request.fusion.method) {
    case FusionMethod::kAttention:
      return {reference.Attention()};
    case FusionMethod::kLogitMean:
      return {reference.Logits(CombineRule::kLogitMean)};
    case FusionMethod::kProbMean:
      return {reference.Logits(CombineRule::kProbMean)};
    case FusionMethod::kProbMax:
      return {reference.Logits(CombineRule::kProbMax)};
    case FusionMethod::kLogitMax:
      return {reference.Logits(CombineRule::kLogitMax)};
    case FusionMethod::kPerPrompt:
    case FusionMethod::kVote:
      break;
  }
  std::vector<std::vector<int32_t>> answers;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    answers.push_back(reference.Generate({reference.PromptSequence(index)}, CombineRule::kNone, {},
                                         PromptSeed(request.sampling.seed, index), {}));
  }
  return answers;
}

}  // namespace chorus
