#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "core/text/json_node.h"
#include "core/text/regex.h"

namespace chorus {

// The "pattern" of a tokenizer.json component: {"String": "..."} or {"Regex": "..."}.
// Immutable and thread-safe; cheap to copy.
class TextPattern {
 public:
  static absl::StatusOr<TextPattern> Parse(const JsonNode& node);

  // Appends spans that cover `text`: matches and what lies between them.
  void FindSpans(std::string_view text, std::vector<TextSpan>* spans) const;

  // `text` with every match replaced by `content`.
  std::string ReplaceAll(std::string_view text, std::string_view content) const;

 private:
  std::string literal_;  // used when there is no regex
  std::shared_ptr<const Regex> regex_;
};

}  // namespace chorus
