#include "core/text/text_pattern.h"

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"

namespace chorus {

absl::StatusOr<TextPattern> TextPattern::Parse(const JsonNode& node) {
  TextPattern pattern;
  const JsonNode literal = node.Member("String");
  if (!literal.IsNull()) {
    CHORUS_ASSIGN_OR_RETURN(pattern.literal_, literal.String());
    if (!pattern.literal_.empty()) return pattern;
  }
  // An empty literal matches between all characters, like an empty expression.
  std::string expression;
  if (literal.IsNull()) {
    const JsonNode regex = node.Member("Regex");
    if (regex.IsNull()) return node.Error("must be {\"String\": ...} or {\"Regex\": ...}");
    CHORUS_ASSIGN_OR_RETURN(expression, regex.String());
  }
  absl::StatusOr<Regex> regex = Regex::Compile(expression);
  if (!regex.ok()) return node.Error(FromAbsl(regex.status().message()));
  pattern.regex_ = std::make_shared<const Regex>(*std::move(regex));
  return pattern;
}

void TextPattern::FindSpans(std::string_view text, std::vector<TextSpan>* spans) const {
  if (regex_ != nullptr) {
    regex_->FindSpans(text, spans);
    return;
  }
  size_t covered = 0;
  for (size_t found = text.find(literal_); found != std::string_view::npos;
       found = text.find(literal_, covered)) {
    if (covered < found) spans->push_back({covered, found, false});
    covered = found + literal_.size();
    spans->push_back({found, covered, true});
  }
  if (covered < text.size()) spans->push_back({covered, text.size(), false});
}

std::string TextPattern::ReplaceAll(std::string_view text, std::string_view content) const {
  // The reference takes an empty text as one unmatched span, whatever the pattern.
  if (text.empty()) return std::string();
  std::vector<TextSpan> spans;
  FindSpans(text, &spans);
  std::string replaced;
  replaced.reserve(text.size());
  for (const TextSpan& span : spans) {
    replaced += span.is_match ? content : text.substr(span.begin, span.end - span.begin);
  }
  return replaced;
}

}  // namespace chorus
