#include "core/engine/fusion_strategy.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/cache/content_hash.h"
#include "core/engine/attention_units.h"

namespace chorus {
namespace {

using LogitRow = GenerationPlan::LogitRow;

bool IsLogitMethod(FusionMethod method) {
  return method == FusionMethod::kLogitMean || method == FusionMethod::kProbMean ||
         method == FusionMethod::kProbMax || method == FusionMethod::kLogitMax;
}

CombineRule RuleOf(FusionMethod method) {
  switch (method) {
    case FusionMethod::kLogitMean:
      return CombineRule::kLogitMean;
    case FusionMethod::kProbMean:
      return CombineRule::kProbMean;
    case FusionMethod::kProbMax:
      return CombineRule::kProbMax;
    case FusionMethod::kLogitMax:
      return CombineRule::kLogitMax;
    case FusionMethod::kAttention:
    case FusionMethod::kPerPrompt:
    case FusionMethod::kVote:
      return CombineRule::kNone;
  }
  CHECK(false);
}

bool ScalesSegments(const Request& request) {
  return request.fusion.scaling.value_or(SegmentScaling{}) != SegmentScaling{};
}

// Prompts that are to be compared or scored one by one: with one there is nothing to compare.
bool ComparesPrompts(const Request& request) {
  if (request.score.has_value()) return request.score->prompt_logprobs;
  return request.response.prompt_disagreement && request.prompts.size() > 1;
}

// The fused sequence of a single prompt is that prompt's own, unless its segment is scaled.
bool HasCompanions(const Request& request) {
  return request.fusion.method == FusionMethod::kAttention && ComparesPrompts(request) &&
         (request.prompts.size() > 1 || ScalesSegments(request));
}

// Tokens that each sequence may have to hold after its prompt.
int64_t CountNewTokens(const Request& request) {
  if (!request.score.has_value()) return request.stopping.max_new_tokens;
  int64_t count = 0;
  for (const auto& tokens : request.score->continuations) {
    count += static_cast<int64_t>(tokens.size());
  }
  return count;
}

void AppendTokens(const std::vector<int32_t>& from, std::vector<int32_t>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

// Caller's indexes of the prompts in the order in which they are to stand.
std::vector<int32_t> PromptOrder(const Request& request) {
  std::vector<int32_t> order(request.prompts.size());
  std::iota(order.begin(), order.end(), 0);
  const FusionMethod method = request.fusion.method;
  const bool exchangeable =
      method == FusionMethod::kAttention
          ? request.fusion.positions == PositionMode::kOverlapping && request.separator.empty()
          : method != FusionMethod::kPerPrompt;
  if (!exchangeable) return order;
  std::vector<uint64_t> hashes;
  for (const auto& prompt : request.prompts) hashes.push_back(ContentHash(prompt));
  const auto& weights = request.fusion.weights;
  const auto weight = [&](int32_t i) { return weights.empty() ? 0.0f : weights[i]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    if (hashes[a] != hashes[b]) return hashes[a] < hashes[b];
    if (request.prompts[a] != request.prompts[b]) return request.prompts[a] < request.prompts[b];
    return weight(a) < weight(b);
  });
  return order;
}

// The request's weights in `order`, summing to 1; empty if there are none.
std::vector<float> NormalisedWeights(const Request& request, const std::vector<int32_t>& order) {
  const auto& weights = request.fusion.weights;
  if (weights.empty()) return {};
  double sum = 0.0;
  for (int32_t i : order) sum += weights[i];
  std::vector<float> normalised;
  for (int32_t i : order) normalised.push_back(static_cast<float>(weights[i] / sum));
  return normalised;
}

// Adds a sequence's own rows to the plan: those of `final_ranges` (ascending), and as early rows all
// others that no segment use covers.
void AddOwnRows(int32_t sequence_index, const SequencePlan& sequence,
                const std::vector<TokenRange>& final_ranges, GenerationPlan* plan) {
  std::vector<TokenRange> others = final_ranges;
  for (const SegmentUse& use : sequence.uses) others.push_back(use.tokens);
  std::sort(others.begin(), others.end(),
            [](const TokenRange& a, const TokenRange& b) { return a.begin < b.begin; });
  const int32_t length = sequence.layout.length();
  others.push_back({length, length});
  int32_t next = 0;
  for (const TokenRange& range : others) {
    if (range.begin > next) plan->early_rows.push_back({sequence_index, {next, range.begin}});
    next = range.end;
  }
  for (const TokenRange& range : final_ranges) plan->final_rows.push_back({sequence_index, range});
}

uint64_t UseHash(uint64_t prefix_hash, int32_t begin_position, absl::Span<const int32_t> tokens) {
  const int32_t head[] = {static_cast<int32_t>(prefix_hash), static_cast<int32_t>(prefix_hash >> 32),
                          begin_position};
  return ContentHash(tokens) ^ (ContentHash(head) * 0x9e3779b97f4a7c15ull);
}

// Segments may be moved by multiples of this many positions: see SegmentUse::moved_by.
int32_t MoveUnit(absl::Span<const AttentionWindow> layer_windows) {
  int64_t unit = 1;
  for (const AttentionWindow& window : layer_windows) {
    if (window.kind == AttentionWindow::Kind::kChunked) unit = std::lcm(unit, int64_t{window.size});
    // No position is as large: nothing is moved.
    unit = std::min<int64_t>(unit, std::numeric_limits<int32_t>::max());
  }
  return static_cast<int32_t>(unit);
}

// The segment uses of `sequence`; `own_tails`: ranges at segments' ends that stay its own.
std::vector<SegmentUse> PlanUses(const SequencePlan& sequence,
                                 const std::vector<TokenRange>& own_tails, int32_t move_unit) {
  const SegmentLayout& layout = sequence.layout;
  const absl::Span<const int32_t> token_ids = sequence.token_ids;
  const int32_t prefix_length = layout.prefix_length();
  const bool has_prefix = prefix_length > 0;
  std::vector<SegmentUse> uses;
  uint64_t prefix_hash = 0;
  if (has_prefix) {
    prefix_hash = UseHash(0, 0, token_ids.subspan(0, prefix_length));
    uses.push_back({.tokens = {0, prefix_length}, .hash = prefix_hash});
  }
  for (const TokenRange& segment : layout.segments()) {
    TokenRange tokens = segment;
    for (const TokenRange& tail : own_tails) {
      if (tail.end == segment.end) tokens.end = tail.begin;
    }
    if (tokens.length() == 0) continue;
    SegmentUse use = {.tokens = tokens, .sees_prefix = has_prefix};
    const int32_t position = layout.PositionOf(tokens.begin);
    if (!has_prefix && layout.position_mode() == PositionMode::kSequential) {
      use.moved_by = position - position % move_unit;
    }
    use.begin_position = position - use.moved_by;
    use.hash = UseHash(prefix_hash, use.begin_position,
                       token_ids.subspan(tokens.begin, tokens.length()));
    uses.push_back(use);
  }
  return uses;
}

std::vector<int32_t> SegmentedTokens(const Request& request, const std::vector<int32_t>& order) {
  std::vector<int32_t> token_ids = request.prefix;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0) AppendTokens(request.separator, &token_ids);
    AppendTokens(request.prompts[order[i]], &token_ids);
  }
  AppendTokens(request.suffix, &token_ids);
  return token_ids;
}

absl::StatusOr<SegmentLayout> SegmentedLayout(const Request& request,
                                              const std::vector<int32_t>& order) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = static_cast<int32_t>(request.prefix.size());
  for (int32_t i : order) {
    pieces.segment_lengths.push_back(static_cast<int32_t>(request.prompts[i].size()));
  }
  pieces.separator_length = static_cast<int32_t>(request.separator.size());
  pieces.separator_policy = request.fusion.separators;
  pieces.position_mode = request.fusion.positions;
  pieces.suffix_length = static_cast<int32_t>(request.suffix.size());
  return SegmentLayout::FromPieces(pieces);
}

// The first choice of the one ATTENTION sequence: returns which of its rows must run together. A
// segment's tail from its last own token on holds back the attached separator too, which sees that
// token.
std::vector<TokenRange> PlanFirstToken(const Request& request, const std::vector<int32_t>& order,
                                       const SegmentLayout& layout, GenerationPlan* plan) {
  const int32_t length = layout.length();
  std::vector<TokenRange> final_ranges;
  const auto add_tail = [&](size_t segment_index) {
    const int32_t row = layout.last_own_tokens()[segment_index];
    plan->first_rows.push_back({0, row});
    final_ranges.push_back({row, layout.segments()[segment_index].end});
  };
  if (!request.suffix.empty()) {
    plan->first_rows.push_back({0, length - 1});
    final_ranges.push_back({length - 1, length});
  } else if (request.fusion.first_token == FirstToken::kLastSegment) {
    const int32_t last = static_cast<int32_t>(order.size()) - 1;  // the caller's last
    add_tail(std::find(order.begin(), order.end(), last) - order.begin());
  } else {
    for (size_t i = 0; i < order.size(); ++i) add_tail(i);
    plan->first_rule = CombineRule::kLogitMean;
    plan->first_weights = NormalisedWeights(request, order);
  }
  return final_ranges;
}

// Prefix, one prompt as its only segment, suffix: plainly causal.
absl::StatusOr<SequencePlan> PlainSequence(const Request& request, int32_t prompt_index) {
  const std::vector<int32_t>& prompt = request.prompts[prompt_index];
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = static_cast<int32_t>(request.prefix.size());
  pieces.segment_lengths = {static_cast<int32_t>(prompt.size())};
  pieces.suffix_length = static_cast<int32_t>(request.suffix.size());
  CHORUS_ASSIGN_OR_RETURN(SegmentLayout layout, SegmentLayout::FromPieces(pieces));
  SequencePlan sequence = {.token_ids = request.prefix,
                           .layout = std::move(layout),
                           .prompt_index = prompt_index};
  AppendTokens(prompt, &sequence.token_ids);
  AppendTokens(request.suffix, &sequence.token_ids);
  const int32_t length = sequence.layout.length();
  // One segment at its own place: nothing is moved.
  sequence.uses = PlanUses(sequence, {{length - 1, length}}, /*move_unit=*/1);
  return sequence;
}

// Adds a companion sequence for each prompt to the plan's one generation.
absl::Status AddCompanions(const Request& request, const std::vector<int32_t>& order,
                           FusionPlan* plan) {
  GenerationPlan& generation = plan->generations.front();
  for (int32_t prompt_index : order) {
    CHORUS_ASSIGN_OR_RETURN(SequencePlan sequence, PlainSequence(request, prompt_index));
    const auto index = static_cast<int32_t>(plan->sequences.size());
    const int32_t length = sequence.layout.length();
    generation.sequence_indexes.push_back(index);
    generation.prompt_lengths.push_back(length);
    generation.first_compared_rows.push_back({index, length - 1});
    AddOwnRows(index, sequence, {{length - 1, length}}, &generation);
    plan->sequences.push_back(std::move(sequence));
  }
  generation.num_companions = static_cast<int32_t>(order.size());
  return absl::OkStatus();
}

absl::StatusOr<FusionPlan> PlanAttention(const Request& request, int32_t move_unit) {
  const std::vector<int32_t> order = PromptOrder(request);
  CHORUS_ASSIGN_OR_RETURN(SegmentLayout layout, SegmentedLayout(request, order));
  SequencePlan sequence = {.token_ids = SegmentedTokens(request, order),
                           .layout = std::move(layout)};
  sequence.scales_segments = ScalesSegments(request);
  GenerationPlan generation;
  if (request.response.attribution || request.explain.has_value()) {
    generation.key_units =
        KeyUnitsOf(sequence.layout, order,
                   sequence.layout.length() + MaxNewTokens(request));
  }
  generation.sequence_indexes = {0};
  generation.prompt_lengths = {sequence.layout.length()};
  generation.draw_seed = request.sampling.seed;
  generation.prompt_tokens = sequence.token_ids;
  const std::vector<TokenRange> final_ranges =
      PlanFirstToken(request, order, sequence.layout, &generation);
  sequence.uses = PlanUses(sequence, final_ranges, move_unit);
  AddOwnRows(0, sequence, final_ranges, &generation);

  FusionPlan plan;
  plan.sequences.push_back(std::move(sequence));
  plan.generations.push_back(std::move(generation));
  plan.segment_prompts = order;
  if (HasCompanions(request)) {
    CHORUS_RETURN_IF_ERROR(AddCompanions(request, order, &plan));
  } else if (ComparesPrompts(request)) {
    plan.generations[0].first_compared_rows = plan.generations[0].first_rows;
  }
  return plan;
}

// Adds sequence `index` of `plan` to a generation.
void AddSequence(const FusionPlan& plan, const Request& request, int32_t index,
                 GenerationPlan* generation) {
  const SequencePlan& sequence = plan.sequences[index];
  const int32_t length = sequence.layout.length();
  generation->sequence_indexes.push_back(index);
  generation->prompt_lengths.push_back(length);
  generation->first_rows.push_back({index, length - 1});
  AddOwnRows(index, sequence, {{length - 1, length}}, generation);
  if (generation->prompt_tokens.empty()) AppendTokens(request.prefix, &generation->prompt_tokens);
  AppendTokens(request.prompts[sequence.prompt_index], &generation->prompt_tokens);
  AppendTokens(request.suffix, &generation->prompt_tokens);
}

absl::StatusOr<FusionPlan> PlanSequences(const Request& request) {
  FusionPlan plan;
  const std::vector<int32_t> order = PromptOrder(request);
  for (int32_t prompt_index : order) {
    CHORUS_ASSIGN_OR_RETURN(SequencePlan sequence, PlainSequence(request, prompt_index));
    plan.sequences.push_back(std::move(sequence));
  }
  const auto num_sequences = static_cast<int32_t>(order.size());
  if (IsLogitMethod(request.fusion.method)) {
    GenerationPlan& generation = plan.generations.emplace_back();
    generation.draw_seed = request.sampling.seed;
    generation.rule = generation.first_rule = RuleOf(request.fusion.method);
    generation.weights = generation.first_weights = NormalisedWeights(request, order);
    for (int32_t i = 0; i < num_sequences; ++i) AddSequence(plan, request, i, &generation);
    if (ComparesPrompts(request)) generation.first_compared_rows = generation.first_rows;
    return plan;
  }
  for (int32_t i = 0; i < num_sequences; ++i) {
    GenerationPlan& generation = plan.generations.emplace_back();
    generation.prompt_index = order[i];
    generation.draw_seed = PromptSeed(request.sampling.seed, order[i]);
    AddSequence(plan, request, i, &generation);
  }
  return plan;
}

// Adds what the companions read and generate beside the fused sequence. They use its cached segments
// where those stand at the same positions and end with the same token.
void AddCompanionSize(const Request& request, RequestSize* size) {
  const bool same_place =
      request.fusion.positions == PositionMode::kOverlapping || request.prefix.empty();
  const bool same_end = request.suffix.empty()
                            ? request.fusion.first_token == FirstToken::kFuseFirst
                            : request.separator.empty() ||
                                  request.fusion.separators == SeparatorPolicy::kIsolated;
  for (const std::vector<int32_t>& prompt : request.prompts) {
    int64_t num_own = static_cast<int64_t>(request.suffix.size());
    if (!same_place || !same_end) {
      num_own += static_cast<int64_t>(prompt.size());
    } else if (request.suffix.empty()) {
      num_own = 1;  // the last token, whose row is compared
    }
    size->prompt_tokens += num_own;
    size->total_tokens += num_own + CountNewTokens(request);
    ++size->num_sequences;
  }
}

}  // namespace

absl::StatusOr<FusionPlan> PlanFusion(const Request& request,
                                      absl::Span<const AttentionWindow> layer_windows) {
  CHORUS_ASSIGN_OR_RETURN(FusionPlan plan, request.fusion.method == FusionMethod::kAttention
                                               ? PlanAttention(request, MoveUnit(layer_windows))
                                               : PlanSequences(request));
  plan.has_windows = !layer_windows.empty();
  const RequestSize size = SizeOf(request);
  plan.prompt_tokens = static_cast<int32_t>(size.prompt_tokens);
  plan.num_slots = size.num_slots;
  return plan;
}

int32_t MaxNewTokens(const Request& request) {
  if (!request.score.has_value()) return request.stopping.max_new_tokens;
  size_t longest = 0;
  for (const auto& tokens : request.score->continuations) longest = std::max(longest, tokens.size());
  return static_cast<int32_t>(longest);
}

RequestSize SizeOf(const Request& request) {
  const auto num_prompts = static_cast<int64_t>(request.prompts.size());
  const bool one_sequence = request.fusion.method == FusionMethod::kAttention;
  RequestSize size;
  size.prompt_tokens = static_cast<int64_t>(request.prefix.size());
  for (const auto& prompt : request.prompts) {
    size.prompt_tokens += static_cast<int64_t>(prompt.size());
  }
  size.prompt_tokens +=
      static_cast<int64_t>(request.suffix.size()) * (one_sequence ? 1 : num_prompts);
  if (one_sequence && num_prompts > 0) {
    size.prompt_tokens += static_cast<int64_t>(request.separator.size()) * (num_prompts - 1);
  }
  size.num_sequences = one_sequence ? 1 : num_prompts;
  size.total_tokens = size.prompt_tokens + CountNewTokens(request) * size.num_sequences;
  if (HasCompanions(request)) AddCompanionSize(request, &size);
  size.num_slots = size.total_tokens;
  const bool moves_segments = one_sequence && request.prefix.empty() &&
                              request.fusion.positions == PositionMode::kSequential;
  for (size_t i = 1; moves_segments && i < request.prompts.size(); ++i) {
    size.num_slots += static_cast<int64_t>(request.prompts[i].size());
    if (request.fusion.separators == SeparatorPolicy::kAttached) {
      size.num_slots += static_cast<int64_t>(request.separator.size());
    }
  }
  return size;
}

bool TakesWeights(const Request& request) {
  switch (request.fusion.method) {
    case FusionMethod::kLogitMean:
    case FusionMethod::kProbMean:
      return true;
    case FusionMethod::kAttention:
      return request.suffix.empty() && request.fusion.first_token == FirstToken::kFuseFirst;
    default:
      return false;
  }
}

uint64_t PromptSeed(uint64_t seed, int32_t prompt_index) {
  // SplitMix64's finaliser: neighbouring seeds and indexes give unrelated streams.
  uint64_t x = seed + 0x9e3779b97f4a7c15ull * (static_cast<uint64_t>(prompt_index) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace chorus
