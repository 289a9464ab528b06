#include "client/mask_subject.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/text/prompt_template.h"
#include "core/text/tokenizer.h"

namespace chorus {
namespace {

constexpr int32_t kLongestShownWhole = 54;  // tokens; the longest founding example that was
constexpr int32_t kDefaultGenerated = 10;

// Founding document 000: prompts of equal length, isolated separators, sequential positions.
struct Scenario {
  const char* name;
  int32_t prompts, tokens, separator_tokens, generated;
  int32_t max_positions;  // 0: shown whole
};
constexpr std::array kScenarios = {
    Scenario{"small", 3, 15, 2, 5, 0},
    Scenario{"medium", 5, 25, 3, 8, 30},
    Scenario{"large", 5, 50, 4, 15, 35},
    Scenario{"custom", 4, 30, 3, kDefaultGenerated, 30},
};

absl::Status TooManyTokens(absl::string_view flags, int64_t count) {
  return FieldError(std::string(flags), absl::StrCat(count, " tokens"),
                    absl::StrCat("must be at most ", kMaxMaskTokens, " in all"));
}

absl::StatusOr<Scenario> FindScenario(const MaskOptions& options) {
  const std::string name = options.scenario.value_or(kScenarios.front().name);
  for (Scenario scenario : kScenarios) {
    if (name != scenario.name) continue;
    // Only custom gets here with numbers: see FinishMaskOptions.
    scenario.prompts = options.prompts.value_or(scenario.prompts);
    scenario.tokens = options.tokens.value_or(scenario.tokens);
    scenario.separator_tokens = options.separator_tokens.value_or(scenario.separator_tokens);
    scenario.generated = options.generated.value_or(scenario.generated);
    return scenario;
  }
  return FieldError(
      "--scenario", name,
      absl::StrCat("must be one of ",
                   absl::StrJoin(kScenarios, ", ", [](std::string* out, const Scenario& scenario) {
                     out->append(scenario.name);
                   })));
}

absl::StatusOr<MaskSubject> FromScenario(const MaskOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(const Scenario scenario, FindScenario(options));
  const int64_t length = int64_t{scenario.prompts} * scenario.tokens +
                         (int64_t{scenario.prompts} - 1) * scenario.separator_tokens +
                         scenario.generated;
  if (length > kMaxMaskTokens) {
    return TooManyTokens("--prompts, --tokens, --separator_tokens, --generated", length);
  }
  SegmentLayout::Pieces pieces = {.separator_length = scenario.separator_tokens,
                                  .position_mode = PositionMode::kSequential};
  pieces.segment_lengths.assign(scenario.prompts, scenario.tokens);
  CHORUS_ASSIGN_OR_RETURN(SegmentLayout layout, SegmentLayout::FromPieces(pieces));
  MaskSubject subject = {
      .name = scenario.name, .layout = std::move(layout), .length = static_cast<int32_t>(length)};
  subject.is_full = scenario.max_positions == 0;
  if (!subject.is_full) subject.max_positions = scenario.max_positions;
  return subject;
}

absl::StatusOr<MaskSubject> FromRanges(const MaskOptions& options) {
  std::vector<TokenRange> segments = options.segments.value_or(std::vector<TokenRange>());
  const int32_t prefix_length = options.prefix_length.value_or(0);
  int32_t segments_end = prefix_length;
  for (const TokenRange& segment : segments) segments_end = std::max(segments_end, segment.end);
  const int32_t original_length = options.original_length.value_or(segments_end);
  const int32_t length = options.length.value_or(original_length);
  if (length > kMaxMaskTokens) return TooManyTokens("--segments", length);
  absl::StatusOr<SegmentLayout> layout = SegmentLayout::FromRanges(
      prefix_length, std::move(segments), original_length, length, PositionMode::kSequential);
  if (!layout.ok()) {
    // The message begins with what is wrong: "segment 1 [12, 20) overlaps ...", "length 5 is ...".
    const absl::string_view message = layout.status().message();
    const bool is_segment = absl::StartsWith(message, "segment ");
    return absl::InvalidArgumentError(absl::StrCat(is_segment ? "--segments: " : "--", message));
  }
  if (length < 1) return FieldError("--length", absl::StrCat(length), "must be at least 1");
  return MaskSubject{.name = "ranges",
                     .layout = *std::move(layout),
                     .length = length,
                     .is_full = length <= kLongestShownWhole};
}

// The tokens of a prompt as the server makes them.
struct PromptTokens {
  FrameTokens frame;
  std::vector<std::vector<int32_t>> segments;  // the question first
};

absl::StatusOr<PromptTokens> Tokenise(const AskOptions& ask, const TextConfig& config,
                                      const Tokenizer& tokenizer) {
  FrameText text = {.system = ask.system, .prefix = ask.prefix, .suffix = ask.suffix};
  if (ask.prompt_template.has_value()) {
    text.kind = static_cast<TemplateKind>(*ask.prompt_template);
  }
  if (ask.separator.has_value()) text.separator = *ask.separator;
  PromptTokens tokens = {.frame = EncodeFrame(text, config, tokenizer)};
  std::vector<std::string> prompts = {ask.question};
  prompts.insert(prompts.end(), ask.paraphrases.begin(), ask.paraphrases.end());
  for (size_t i = 0; i < prompts.size(); ++i) {
    tokens.segments.push_back(tokenizer.Encode(prompts[i], SpecialTokens::kPlainText));
    if (tokens.segments.back().empty()) {
      return FieldError(i == 0 ? "question" : absl::StrCat("--paraphrase number ", i),
                        absl::StrCat(prompts[i].size(), " bytes"),
                        "must hold at least one token of the model's vocabulary");
    }
  }
  return tokens;
}

// Prefix, segments with separators between them, suffix.
std::vector<int32_t> Joined(const PromptTokens& tokens) {
  std::vector<int32_t> ids = tokens.frame.prefix;
  const auto append = [&](const std::vector<int32_t>& piece) {
    ids.insert(ids.end(), piece.begin(), piece.end());
  };
  for (size_t i = 0; i < tokens.segments.size(); ++i) {
    if (i > 0) append(tokens.frame.separator);
    append(tokens.segments[i]);
  }
  append(tokens.frame.suffix);
  return ids;
}

absl::StatusOr<MaskSubject> FromPrompt(const MaskOptions& options) {
  const std::string path = absl::StrCat(*options.model, "/tokenizer.json");
  CHORUS_ASSIGN_OR_RETURN(const std::unique_ptr<const Tokenizer> tokenizer, Tokenizer::Load(path));
  CHORUS_ASSIGN_OR_RETURN(const TextConfig config, LoadTextConfig(*options.model, *tokenizer));
  CHORUS_ASSIGN_OR_RETURN(const PromptTokens tokens, Tokenise(options.ask, config, *tokenizer));
  std::vector<int32_t> ids = Joined(tokens);
  const int32_t generated = options.generated.value_or(kDefaultGenerated);
  const int64_t length = static_cast<int64_t>(ids.size()) + generated;
  if (length > kMaxMaskTokens) return TooManyTokens("prompt", length);

  SegmentLayout::Pieces pieces = {
      .prefix_length = static_cast<int32_t>(tokens.frame.prefix.size()),
      .separator_length = static_cast<int32_t>(tokens.frame.separator.size()),
      .separator_policy = options.ask.separators == v1::SEPARATOR_POLICY_ATTACHED
                              ? SeparatorPolicy::kAttached
                              : SeparatorPolicy::kIsolated,
      .position_mode = PositionMode::kSequential,  // a mask does not look at positions
      .suffix_length = static_cast<int32_t>(tokens.frame.suffix.size())};
  for (const auto& segment : tokens.segments) {
    pieces.segment_lengths.push_back(static_cast<int32_t>(segment.size()));
  }
  CHORUS_ASSIGN_OR_RETURN(SegmentLayout layout, SegmentLayout::FromPieces(pieces));
  MaskSubject subject = {.name = "prompt",
                         .layout = std::move(layout),
                         .length = static_cast<int32_t>(length),
                         .is_full = length <= kLongestShownWhole,
                         .samples_prefix = true,
                         .token_ids = std::move(ids)};
  for (const int32_t id : subject.token_ids) {
    subject.token_texts.push_back(tokenizer->Decode({id}, /*skip_special_tokens=*/false));
  }
  return subject;
}

}  // namespace

absl::StatusOr<MaskSubject> MakeMaskSubject(const MaskOptions& options) {
  if (options.model) return FromPrompt(options);
  if (options.segments || options.original_length || options.length || options.prefix_length) {
    return FromRanges(options);
  }
  return FromScenario(options);
}

}  // namespace chorus
