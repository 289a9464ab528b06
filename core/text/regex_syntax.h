#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace chorus {

// Rewrites a regular expression in Oniguruma's Ruby syntax, the one of tokenizer.json files, into a
// PCRE2 pattern (UTF and UCP modes, ^ and $ multi-line) that matches the same text.
//
// The two differ in \s (PCRE2's holds U+180E), \w, \d and \b (other Unicode sets), \h (a
// hexadecimal digit against horizontal space), \p{Han} (script against script extensions), (?m)
// (Ruby's means that a dot matches a newline) and in what has no counterpart, which is refused with
// InvalidArgument: nested classes, && in a class, {n,m}+, \W and \H in a class, raw bytes.
absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern);

}  // namespace chorus
