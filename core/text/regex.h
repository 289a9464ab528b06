#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace chorus {

// A part of a text: bytes [begin, end), and whether a pattern matched it.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;

  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

// A compiled regular expression of a tokenizer.json file (Oniguruma's syntax), run by PCRE2 with
// its just-in-time compiler. Immutable and thread-safe.
class Regex {
 public:
  // InvalidArgument: the pattern is malformed or has no PCRE2 counterpart (regex_syntax.h).
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  // Appends spans that cover `text` (valid UTF-8) in order: matches and what lies between them.
  // Like Oniguruma's find_iter an empty match counts unless it touches the match before it.
  //
  // A pattern that backtracks beyond kMatchLimitBase + kMatchLimitPerByte steps a byte (or beyond
  // PCRE2's heap limit) finds nothing more: the rest of the text becomes one unmatched span.
  // Bounded work with a defined result, where the reference would run for hours.
  void FindSpans(std::string_view text, std::vector<TextSpan>* spans) const;

 private:
  struct CodeDeleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit Regex(pcre2_real_code_8* code) : code_(code) {}

  std::unique_ptr<pcre2_real_code_8, CodeDeleter> code_;
};

}  // namespace chorus
