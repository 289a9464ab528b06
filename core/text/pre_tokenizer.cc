#include "core/text/pre_tokenizer.h"

#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/byte_level.h"
#include "core/text/regex.h"
#include "core/text/text_pattern.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr int kMaxNesting = 16;

// GPT-2's expression, which ByteLevel implies with use_regex.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What becomes of the text that a splitting pattern matches.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

void AddPart(const TextPiece& piece, size_t begin, size_t end, std::vector<TextPiece>* parts) {
  if (begin < end) {
    parts->push_back({piece.text.substr(begin, end - begin), piece.is_first && begin == 0});
  }
}

// Joins a match to the span before it (or, walking backwards, after it) unless that is one too.
std::vector<TextSpan> MergeMatches(const std::vector<TextSpan>& spans, bool with_next) {
  std::vector<TextSpan> merged;
  bool previous_match = false;
  for (size_t i = 0; i < spans.size(); ++i) {
    const TextSpan& span = with_next ? spans[spans.size() - 1 - i] : spans[i];
    if (span.is_match && !previous_match && !merged.empty()) {
      (with_next ? merged.back().begin : merged.back().end) = with_next ? span.begin : span.end;
    } else {
      merged.push_back(span);
    }
    previous_match = span.is_match;
  }
  if (with_next) return {merged.rbegin(), merged.rend()};
  return merged;
}

std::vector<TextSpan> JoinRuns(const std::vector<TextSpan>& spans) {
  std::vector<TextSpan> joined;
  bool previous_match = false;
  for (const TextSpan& span : spans) {
    if (!joined.empty() && span.is_match == previous_match) {
      joined.back().end = span.end;
    } else {
      joined.push_back(span);
    }
    previous_match = span.is_match;
  }
  return joined;
}

void AddSpans(const TextPiece& piece, std::vector<TextSpan> spans, SplitBehavior behavior,
              std::vector<TextPiece>* parts) {
  if (behavior == SplitBehavior::kContiguous) spans = JoinRuns(spans);
  if (behavior == SplitBehavior::kMergedWithPrevious) spans = MergeMatches(spans, false);
  if (behavior == SplitBehavior::kMergedWithNext) spans = MergeMatches(spans, true);
  for (const TextSpan& span : spans) {
    if (behavior == SplitBehavior::kRemoved && span.is_match) continue;
    AddPart(piece, span.begin, span.end, parts);
  }
}

class Split : public PreTokenizerStep {
 public:
  Split(TextPattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void Apply(const TextPiece& piece, TextArena* arena,
             std::vector<TextPiece>* parts) const override {
    std::vector<TextSpan> spans;
    pattern_.FindSpans(piece.text, &spans);
    if (invert_) {
      for (TextSpan& span : spans) span.is_match = !span.is_match;
    }
    AddSpans(piece, std::move(spans), behavior_, parts);
  }

 private:
  const TextPattern pattern_;
  const SplitBehavior behavior_;
  const bool invert_;
};

class Digits : public PreTokenizerStep {
 public:
  explicit Digits(bool individual) : individual_(individual) {}

  void Apply(const TextPiece& piece, TextArena* arena,
             std::vector<TextPiece>* parts) const override {
    size_t begin = 0;  // of the run that is not yet added
    bool in_digits = false;
    for (size_t at = 0; at < piece.text.size();) {
      const Utf8Step step = ReadUtf8(piece.text.substr(at));
      const bool is_digit = IsNumeric(step.code_point);
      if (is_digit != in_digits || (is_digit && individual_)) {
        AddPart(piece, begin, at, parts);
        begin = at;
      }
      in_digits = is_digit;
      at += step.num_bytes;
    }
    AddPart(piece, begin, piece.text.size(), parts);
  }

 private:
  const bool individual_;
};

class ByteLevel : public PreTokenizerStep {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Regex> regex)
      : add_prefix_space_(add_prefix_space), regex_(std::move(regex)) {}

  void Apply(const TextPiece& piece, TextArena* arena,
             std::vector<TextPiece>* parts) const override {
    TextPiece whole = piece;
    if (add_prefix_space_ && !whole.text.empty() && whole.text.front() != ' ') {
      whole.text = arena->Add(Concat(" ", whole.text));
    }
    std::vector<TextSpan> spans;
    if (regex_.has_value()) {
      regex_->FindSpans(whole.text, &spans);
    } else {
      spans.push_back({0, whole.text.size(), false});
    }
    // All parts are mapped into one text; they are cut out of it once it no longer moves.
    std::string mapped;
    mapped.reserve(whole.text.size() + whole.text.size() / 2);
    for (TextSpan& span : spans) {
      const size_t begin = mapped.size();
      AppendByteLevel(whole.text.substr(span.begin, span.end - span.begin), &mapped);
      span = {begin, mapped.size(), false};
    }
    whole.text = arena->Add(std::move(mapped));
    for (const TextSpan& span : spans) AddPart(whole, span.begin, span.end, parts);
  }

 private:
  const bool add_prefix_space_;
  const std::optional<Regex> regex_;
};

class Metaspace : public PreTokenizerStep {
 public:
  enum class Scheme { kFirst, kNever, kAlways };

  Metaspace(std::string replacement, Scheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void Apply(const TextPiece& piece, TextArena* arena,
             std::vector<TextPiece>* parts) const override {
    std::string text;
    text.reserve(piece.text.size() + 16);
    for (const char c : piece.text) {
      if (c == ' ') {
        text += replacement_;
      } else {
        text += c;
      }
    }
    const bool wants_prefix =
        scheme_ == Scheme::kAlways || (scheme_ == Scheme::kFirst && piece.is_first);
    const bool has_prefix = std::string_view(text).substr(0, replacement_.size()) == replacement_;
    if (wants_prefix && !has_prefix && !text.empty()) text.insert(0, replacement_);
    const TextPiece whole = {arena->Add(std::move(text)), piece.is_first};
    size_t begin = 0;
    while (split_ && begin < whole.text.size()) {
      const size_t next = whole.text.find(replacement_, begin + 1);
      if (next == std::string_view::npos) break;
      AddPart(whole, begin, next, parts);
      begin = next;
    }
    AddPart(whole, begin, whole.text.size(), parts);
  }

 private:
  const std::string replacement_;
  const Scheme scheme_;
  const bool split_;
};

using StepOr = absl::StatusOr<std::shared_ptr<const PreTokenizerStep>>;

StepOr MakeSplit(const JsonNode& node) {
  CHORUS_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Parse(node.Member("pattern")));
  CHORUS_ASSIGN_OR_RETURN(const bool invert, node.BoolMember("invert", false));
  const JsonNode behavior_node = node.Member("behavior");
  CHORUS_ASSIGN_OR_RETURN(const std::string name, behavior_node.String());
  SplitBehavior behavior;
  if (name == "Isolated") {
    behavior = SplitBehavior::kIsolated;
  } else if (name == "Removed") {
    behavior = SplitBehavior::kRemoved;
  } else if (name == "MergedWithPrevious") {
    behavior = SplitBehavior::kMergedWithPrevious;
  } else if (name == "MergedWithNext") {
    behavior = SplitBehavior::kMergedWithNext;
  } else if (name == "Contiguous") {
    behavior = SplitBehavior::kContiguous;
  } else {
    return behavior_node.Error(Concat("unknown behavior '", name, "'"));
  }
  return std::make_shared<const Split>(std::move(pattern), behavior, invert);
}

StepOr MakeByteLevel(const JsonNode& node) {
  CHORUS_ASSIGN_OR_RETURN(const bool add_prefix_space, node.BoolMember("add_prefix_space", true));
  CHORUS_ASSIGN_OR_RETURN(const bool use_regex, node.BoolMember("use_regex", true));
  std::optional<Regex> regex;
  if (use_regex) {
    CHORUS_ASSIGN_OR_RETURN(regex, Regex::Compile(kGpt2Pattern));
  }
  return std::make_shared<const ByteLevel>(add_prefix_space, std::move(regex));
}

StepOr MakeMetaspace(const JsonNode& node) {
  CHORUS_ASSIGN_OR_RETURN(std::string replacement, node.StringMember("replacement"));
  if (replacement.empty() ||
      static_cast<size_t>(ReadUtf8(replacement).num_bytes) != replacement.size()) {
    return node.Member("replacement").Error("must be one character");
  }
  CHORUS_ASSIGN_OR_RETURN(const bool split, node.BoolMember("split", true));
  CHORUS_ASSIGN_OR_RETURN(const bool add_prefix_space, node.BoolMember("add_prefix_space", true));
  const JsonNode scheme_node = node.Member("prepend_scheme");
  CHORUS_ASSIGN_OR_RETURN(const std::string name, node.StringMember("prepend_scheme", "always"));
  Metaspace::Scheme scheme = Metaspace::Scheme::kAlways;
  if (name == "first") {
    scheme = Metaspace::Scheme::kFirst;
  } else if (name == "never") {
    scheme = Metaspace::Scheme::kNever;
  } else if (name != "always") {
    return scheme_node.Error(Concat("unknown scheme '", name, "'"));
  }
  if (!add_prefix_space && scheme != Metaspace::Scheme::kNever) {
    return scheme_node.Error("must be \"never\" where add_prefix_space is false");
  }
  return std::make_shared<const Metaspace>(std::move(replacement), scheme, split);
}

StepOr MakeStep(const JsonNode& node, const std::string& type) {
  if (type == "Split") return MakeSplit(node);
  if (type == "ByteLevel") return MakeByteLevel(node);
  if (type == "Metaspace") return MakeMetaspace(node);
  if (type == "Digits") {
    CHORUS_ASSIGN_OR_RETURN(const bool individual, node.BoolMember("individual_digits", false));
    return std::make_shared<const Digits>(individual);
  }
  return node.Error(Concat("unknown type '", type, "'"));
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonNode& node) {
  PreTokenizer pre_tokenizer;
  if (!node.IsNull()) CHORUS_RETURN_IF_ERROR(pre_tokenizer.AddSteps(node, 0));
  return pre_tokenizer;
}

absl::Status PreTokenizer::AddSteps(const JsonNode& node, int depth) {
  if (depth > kMaxNesting) return node.Error("nested too deeply");
  CHORUS_ASSIGN_OR_RETURN(const std::string type, node.StringMember("type"));
  if (type != "Sequence") {
    CHORUS_ASSIGN_OR_RETURN(auto step, MakeStep(node, type));
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  const JsonNode parts = node.Member("pretokenizers");
  if (!parts.IsArray()) return parts.Error("must be a list");
  for (size_t i = 0; i < parts.Size(); ++i) {
    CHORUS_RETURN_IF_ERROR(AddSteps(parts.Element(i), depth + 1));
  }
  return absl::OkStatus();
}

std::vector<TextPiece> PreTokenizer::Split(const TextPiece& piece, TextArena* arena) const {
  std::vector<TextPiece> pieces = {piece};
  std::vector<TextPiece> parts;
  for (const auto& step : steps_) {
    parts.clear();
    parts.reserve(pieces.size());
    for (const TextPiece& part : pieces) step->Apply(part, arena, &parts);
    pieces.swap(parts);
  }
  return pieces;
}

}  // namespace chorus
