#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace chorus {

// U+FFFD in UTF-8: what stands for bytes that are not UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// One step through UTF-8 text.
struct Utf8Step {
  uint32_t code_point = 0;  // meaningless unless is_valid
  int num_bytes = 0;        // of the character, or of the maximal invalid part; >= 1
  bool is_valid = false;
  // The text ended inside a character that further bytes could complete.
  bool is_truncated = false;
};

// Reads the character at the head of `text`. Invalid input is cut as Unicode 3.9 (table 3-8),
// Python's errors="replace" and Rust's from_utf8_lossy cut it: each maximal prefix of a well-formed
// sequence is one unit. REQUIRES: text is not empty.
Utf8Step ReadUtf8(std::string_view text);

// Appends `code_point` (a Unicode scalar value) to `text`.
void AppendUtf8(uint32_t code_point, std::string* text);

bool IsValidUtf8(std::string_view text);

// `text` with every invalid part replaced by U+FFFD; what Python's
// bytes.decode("utf-8", errors="replace") gives.
std::string ToValidUtf8(std::string_view text);

// The number of bytes at the end of `text` that begin a character and do not finish it: 0..3.
size_t NumTruncatedBytes(std::string_view text);

// An older character of the same category and UTF-8 length in place of one that Unicode added after
// version 14, which PCRE2 10.42 does not know and the tokenizers library (Unicode 16) does; any
// other character itself.
uint32_t StandInFor(uint32_t code_point);

// `text` (valid UTF-8) with every character replaced by StandInFor it: the same length, the same
// character borders. Returns `text` itself when nothing changes, else a view of *buffer.
std::string_view WithStandIns(std::string_view text, std::string* buffer);

// Rust's char::is_numeric: general category Nd, Nl or No.
bool IsNumeric(uint32_t code_point);
// Rust's char::to_lowercase where it gives one character; U+0130, which gives two, stays.
uint32_t ToLowerCase(uint32_t code_point);
// White_Space: the class \s of the regular expressions of Rust and Oniguruma.
bool IsWhitespace(uint32_t code_point);
// The class \w of Rust's regular expressions (UTS 18): Alphabetic, M, Nd, Pc, Join_Control.
bool IsWordCharacter(uint32_t code_point);

}  // namespace chorus
