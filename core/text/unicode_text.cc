#include "core/text/unicode_text.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

#include <unicode/uchar.h>

namespace chorus {
namespace {

struct StandInRange {
  uint32_t first;
  uint32_t last;
  uint32_t stand_in;
};

constexpr StandInRange kStandIns[] = {
#include "core/text/newer_characters.inc"
};

// Which pages of 256 characters hold any newer character: nearly all text ends its search here.
constexpr size_t kNumPages = 0x110000 >> 8;
constexpr std::array<bool, kNumPages> MakeNewerPages() {
  std::array<bool, kNumPages> pages{};
  for (const StandInRange& range : kStandIns) {
    for (uint32_t page = range.first >> 8; page <= range.last >> 8; ++page) pages[page] = true;
  }
  return pages;
}
constexpr std::array<bool, kNumPages> kNewerPages = MakeNewerPages();

// The number of bytes at the head of `text` that are ASCII.
size_t AsciiPrefix(std::string_view text) {
  size_t length = 0;
  while (length + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + length, 8);
    if (word & 0x8080808080808080u) break;
    length += 8;
  }
  while (length < text.size() && static_cast<unsigned char>(text[length]) < 0x80) ++length;
  return length;
}

// What a lead byte demands: the sequence's length and the range of its second byte, which excludes
// overlong forms, surrogates and values above U+10FFFF.
struct LeadByte {
  int length;
  unsigned char second_min;
  unsigned char second_max;
};

LeadByte ClassifyLead(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step ReadUtf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  Utf8Step step;
  step.num_bytes = 1;
  if (byte(0) < 0x80) {
    step.code_point = byte(0);
    step.is_valid = true;
    return step;
  }
  const LeadByte lead = ClassifyLead(byte(0));
  if (lead.length == 0) return step;
  step.code_point = byte(0) & (0x7F >> lead.length);
  for (int i = 1; i < lead.length; ++i) {
    if (static_cast<size_t>(i) == text.size()) {
      step.is_truncated = true;
      return step;
    }
    const unsigned char min = i == 1 ? lead.second_min : 0x80;
    const unsigned char max = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < min || byte(i) > max) return step;
    step.code_point = step.code_point << 6 | (byte(i) & 0x3F);
    step.num_bytes = i + 1;
  }
  step.is_valid = true;
  return step;
}

void AppendUtf8(uint32_t code_point, std::string* text) {
  const auto push = [&](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  const auto tail = [&](int shift) { push(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    push(0xE0 | code_point >> 12);
    tail(6);
    tail(0);
  } else {
    push(0xF0 | code_point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool IsValidUtf8(std::string_view text) {
  for (;;) {
    text.remove_prefix(AsciiPrefix(text));
    if (text.empty()) return true;
    const Utf8Step step = ReadUtf8(text);
    if (!step.is_valid) return false;
    text.remove_prefix(step.num_bytes);
  }
}

std::string ToValidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t num_ascii = AsciiPrefix(text);
    valid.append(text.substr(0, num_ascii));
    text.remove_prefix(num_ascii);
    if (text.empty()) break;
    const Utf8Step step = ReadUtf8(text);
    valid.append(step.is_valid ? text.substr(0, step.num_bytes) : kReplacementCharacter);
    text.remove_prefix(step.num_bytes);
  }
  return valid;
}

size_t NumTruncatedBytes(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const std::string_view end = text.substr(text.size() - length);
    if (ReadUtf8(end).is_truncated) return length;
    if ((static_cast<unsigned char>(end[0]) & 0xC0) != 0x80) return 0;
  }
  return 0;
}

uint32_t StandInFor(uint32_t code_point) {
  if (code_point >= 0x110000 || !kNewerPages[code_point >> 8]) return code_point;
  const auto* range = std::upper_bound(
      std::begin(kStandIns), std::end(kStandIns), code_point,
      [](uint32_t value, const StandInRange& entry) { return value < entry.first; });
  if (range == std::begin(kStandIns)) return code_point;
  --range;
  return code_point <= range->last ? range->stand_in : code_point;
}

std::string_view WithStandIns(std::string_view text, std::string* buffer) {
  bool changed = false;
  for (size_t i = 0; i < text.size();) {
    i += AsciiPrefix(text.substr(i));
    if (i == text.size()) break;
    const Utf8Step step = ReadUtf8(text.substr(i));
    const uint32_t stand_in = StandInFor(step.code_point);
    if (stand_in != step.code_point) {
      if (!changed) buffer->assign(text);
      changed = true;
      std::string bytes;
      AppendUtf8(stand_in, &bytes);
      buffer->replace(i, bytes.size(), bytes);
    }
    i += step.num_bytes;
  }
  return changed ? std::string_view(*buffer) : text;
}

bool IsNumeric(uint32_t code_point) {
  if (code_point < 0x80) return code_point >= '0' && code_point <= '9';
  // Digits of Unicode 17, which Rust's own tables have and Oniguruma's have not.
  if (code_point >= 0x11DE0 && code_point <= 0x11DE9) return true;
  if (code_point >= 0x16FF4 && code_point <= 0x16FF6) return true;
  return (U_GET_GC_MASK(static_cast<UChar32>(StandInFor(code_point))) & U_GC_N_MASK) != 0;
}

uint32_t ToLowerCase(uint32_t code_point) {
  // Capitals of Unicode 16 and 17: Rust knows them, ICU 72 (Unicode 15) does not.
  if (code_point >= 0x10D50 && code_point <= 0x10D65) return code_point + 0x20;
  if (code_point >= 0x16EA0 && code_point <= 0x16EB8) return code_point + 0x1B;
  switch (code_point) {
    case 0x130:
      return code_point;
    case 0xA7CB:
      return 0x264;
    case 0xA7DC:
      return 0x19B;
    case 0x1C89:
    case 0xA7CC:
    case 0xA7CE:
    case 0xA7D2:
    case 0xA7D4:
    case 0xA7DA:
      return code_point + 1;
    default:
      return static_cast<uint32_t>(u_tolower(static_cast<UChar32>(code_point)));
  }
}

bool IsWhitespace(uint32_t code_point) { return u_isUWhiteSpace(static_cast<UChar32>(code_point)); }

bool IsWordCharacter(uint32_t code_point) {
  const UChar32 character = static_cast<UChar32>(StandInFor(code_point));
  return u_hasBinaryProperty(character, UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(character, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(character) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

}  // namespace chorus
