#include "core/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <limits>

#include <pcre2.h>

#include "absl/status/status.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/regex_syntax.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

// One attempt may take so many backtracking steps. Ordinary tokenizer patterns take a few a byte;
// ten million is PCRE2's own default, some 50 ms.
constexpr uint64_t kMatchLimitBase = 10'000'000;
constexpr uint64_t kMatchLimitPerByte = 16;
constexpr size_t kMaxPatternBytes = 1 << 16;

constexpr uint32_t kCompileOptions =
    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK;

// One thread's work space for matching over one text.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    CHECK(data_ != nullptr && context_ != nullptr);
    const uint64_t limit = kMatchLimitBase + kMatchLimitPerByte * text.size();
    pcre2_set_match_limit(context_, static_cast<uint32_t>(std::min<uint64_t>(
                                        limit, std::numeric_limits<uint32_t>::max())));
  }
  ~Matcher() {
    pcre2_match_data_free(data_);
    pcre2_match_context_free(context_);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // The first match at or after `start`. False: none, or the search gave up.
  bool Find(size_t start, size_t* begin, size_t* end) {
    int result = Match(start, 0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = Match(start, PCRE2_NO_JIT);
    if (result < 0) return false;
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_);
    *begin = offsets[0];
    *end = offsets[1];
    // \K inside a lookahead can put the start behind the end: no usable match.
    return *begin >= start && *begin <= *end;
  }

 private:
  int Match(size_t start, uint32_t options) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), start,
                       PCRE2_NO_UTF_CHECK | options, data_, context_);
  }

  const pcre2_code* code_;
  std::string_view text_;
  pcre2_match_data* data_;
  pcre2_match_context* context_;
};

}  // namespace

void Regex::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(Concat("the regular expression has ", pattern.size(),
                                             " bytes, the limit is ", kMaxPatternBytes));
  }
  if (!IsValidUtf8(pattern)) {
    return absl::InvalidArgumentError("the regular expression is not valid UTF-8");
  }
  CHORUS_ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern));
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    kCompileOptions, &error, &error_offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(
        Concat("the regular expression does not compile: ", reinterpret_cast<const char*>(message),
               " at byte ", error_offset, " of ", translated));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it the interpreter serves
  return Regex(code);
}

void Regex::FindSpans(std::string_view text, std::vector<TextSpan>* spans) const {
  std::string buffer;
  Matcher matcher(code_.get(), WithStandIns(text, &buffer));
  size_t search = 0;   // where the next search starts
  size_t covered = 0;  // spans cover [0, covered)
  bool has_match = false;
  size_t begin = 0;
  size_t end = 0;
  while (search <= text.size() && matcher.Find(search, &begin, &end)) {
    if (begin == end && has_match && end == covered) {
      // Step one character further, as an empty match here would repeat for ever.
      search += search < text.size() ? ReadUtf8(text.substr(search)).num_bytes : 1;
      continue;
    }
    if (covered < begin) spans->push_back({covered, begin, false});
    spans->push_back({begin, end, true});
    has_match = true;
    covered = end;
    search = end;
  }
  if (covered < text.size()) spans->push_back({covered, text.size(), false});
}

}  // namespace chorus
