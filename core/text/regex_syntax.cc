#include "core/text/regex_syntax.h"

#include <algorithm>
#include <array>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"

namespace chorus {
namespace {

// Oniguruma's \w: UTS 18's without Join_Control, and the Latin-1 table it uses below U+0100 counts
// superscript digits and fractions in.
constexpr std::string_view kWordMembers =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kHexMembers = "0-9A-Fa-f";

// Names longer than a general category that are no script.
constexpr std::array<std::string_view, 8> kBinaryProperties = {
    "any",       "alphabetic", "whitespace",           "uppercase",
    "lowercase", "emoji",      "extendedpictographic", "ascii"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) CHORUS_RETURN_IF_ERROR(Step());
    return std::move(output_);
  }

 private:
  absl::Status Step() {
    const char c = pattern_[at_];
    if (c == '\\') return Escape();
    if (in_class_) return StepInClass();
    if (c == '[') {
      OpenClass();
      return absl::OkStatus();
    }
    if (c == '(') return OpenGroup();
    if (Rest().substr(0, 2) == "}+") return Refuse("a possessive interval {n,m}+");
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status StepInClass() {
    if (Rest().substr(0, 2) == "&&") return Refuse("an intersection && in a class");
    if (pattern_[at_] == '[') {
      const size_t end = Rest().find(":]");
      if (Rest().substr(0, 2) != "[:" || end == std::string_view::npos) {
        return Refuse("a class inside a class");
      }
      Copy(end + 2);
      return absl::OkStatus();
    }
    if (pattern_[at_] == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  void OpenClass() {
    in_class_ = true;
    Copy(1);
    if (Rest().substr(0, 1) == "^") Copy(1);
    if (Rest().substr(0, 1) == "]") Copy(1);  // a bracket in first place is a member
  }

  // "(" and, of an option group such as "(?im-x:", the letters.
  absl::Status OpenGroup() {
    if (Rest().substr(0, 2) == "(*") return Refuse("a verb (*...)");
    const size_t end = Rest().find_first_of(":)");
    if (Rest().substr(0, 2) != "(?" || end == std::string_view::npos) {
      Copy(1);
      return absl::OkStatus();
    }
    const std::string_view letters = Rest().substr(2, end - 2);
    if (letters.empty() || letters.find_first_not_of("imxadu-") != std::string_view::npos) {
      Copy(1);  // (?:, (?=, (?<name> and so on
      return absl::OkStatus();
    }
    if (letters.find_first_of("adu") != std::string_view::npos) {
      return Refuse("one of the options (?a), (?d), (?u)");
    }
    output_ += "(?";
    for (const char letter : letters) output_ += letter == 'm' ? 's' : letter;
    at_ += 2 + letters.size();
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (at_ + 1 == pattern_.size()) return Refuse("a backslash at the end");
    switch (pattern_[at_ + 1]) {
      case 's':
        return Replace(2, R"(\p{White_Space})");
      case 'S':
        return Replace(2, R"(\P{White_Space})");
      case 'd':
        return Replace(2, R"(\p{Nd})");
      case 'D':
        return Replace(2, R"(\P{Nd})");
      case 'w':
        return Members(kWordMembers, /*negated=*/false);
      case 'W':
        return Members(kWordMembers, /*negated=*/true);
      case 'h':
        return Members(kHexMembers, /*negated=*/false);
      case 'H':
        return Members(kHexMembers, /*negated=*/true);
      case 'b':
        return WordBoundary("(?:(?<=[$0])(?![$0])|(?<![$0])(?=[$0]))");
      case 'B':
        return WordBoundary("(?:(?<=[$0])(?=[$0])|(?<![$0])(?![$0]))");
      case 'u':
        return CodePoint();
      case 'x':
        return HexByte();
      case 'p':
      case 'P':
        return Property();
      default:
        break;
    }
    Copy(2);
    return absl::OkStatus();
  }

  absl::Status Members(std::string_view members, bool negated) {
    if (in_class_ && negated) return Refuse("\\W or \\H in a class");
    if (in_class_) return Replace(2, members);
    return Replace(2, Concat(negated ? "[^" : "[", members, "]"));
  }

  absl::Status WordBoundary(std::string_view form) {
    if (in_class_) {  // a backspace
      Copy(2);
      return absl::OkStatus();
    }
    std::string replacement;
    for (size_t i = 0; i < form.size(); ++i) {
      if (form[i] != '$') {
        replacement += form[i];
      } else {
        replacement += kWordMembers;
        ++i;
      }
    }
    return Replace(2, replacement);
  }

  absl::Status CodePoint() {  // \uHHHH
    const std::string_view digits = Rest().substr(2, 4);
    if (digits.size() != 4 || !AllHex(digits)) return Refuse("\\u without four digits");
    return Replace(6, Concat("\\x{", digits, "}"));
  }

  absl::Status HexByte() {
    const char first = at_ + 2 < pattern_.size() ? pattern_[at_ + 2] : '\0';
    const bool is_braced = first == '{';
    const bool has_two = at_ + 3 < pattern_.size() && AllHex(Rest().substr(2, 2));
    if (!is_braced && has_two && first >= '8') return Refuse("a raw byte above \\x7F");
    Copy(2);
    return absl::OkStatus();
  }

  // \p{Name}: anything but a general category or a binary property is a script.
  absl::Status Property() {
    const size_t end = Rest().find('}');
    if (Rest().substr(2, 1) != "{" || end == std::string_view::npos) {
      return Refuse("\\p without {name}");
    }
    std::string_view name = Rest().substr(3, end - 3);
    const bool negated = name.substr(0, 1) == "^";
    if (negated) name.remove_prefix(1);
    std::string normalized = absl::AsciiStrToLower(ToAbsl(name));
    normalized.erase(std::remove_if(normalized.begin(), normalized.end(),
                                    [](char c) { return c == '_' || c == '-' || c == ' '; }),
                     normalized.end());
    const bool is_property =
        normalized.size() <= 2 || std::find(kBinaryProperties.begin(), kBinaryProperties.end(),
                                            normalized) != kBinaryProperties.end();
    return Replace(end + 1, Concat(Rest().substr(0, 3), negated ? "^" : "",
                                   is_property ? "" : "sc:", name, "}"));
  }

  static bool AllHex(std::string_view digits) {
    return std::all_of(digits.begin(), digits.end(),
                       [](char c) { return absl::ascii_isxdigit(c); });
  }

  std::string_view Rest() const { return pattern_.substr(at_); }

  void Copy(size_t num_bytes) {
    output_ += Rest().substr(0, num_bytes);
    at_ = std::min(at_ + num_bytes, pattern_.size());
  }

  absl::Status Replace(size_t num_bytes, std::string_view replacement) {
    output_ += replacement;
    at_ += num_bytes;
    return absl::OkStatus();
  }

  absl::Status Refuse(std::string_view what) const {
    return absl::InvalidArgumentError(Concat("the regular expression has ", what, " at byte ", at_,
                                             ", which cannot be translated"));
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string output_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace chorus
