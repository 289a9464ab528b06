#include "core/text/normalizer.h"

#include <algorithm>
#include <utility>

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/text_pattern.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr int kMaxNesting = 16;

// NFC and its siblings, over the characters of Unicode 9 only.
class UnicodeForm : public NormalizerStep {
 public:
  UnicodeForm(const icu::Normalizer2& form, const icu::UnicodeSet& known)
      : known_(known), filtered_(form, known_) {}

  void Apply(std::string* text) const override {
    const bool is_ascii =
        std::all_of(text->begin(), text->end(), [](char c) { return (c & 0x80) == 0; });
    if (is_ascii) return;  // every form leaves ASCII alone
    std::string normalized;
    icu::StringByteSink<std::string> sink(&normalized);
    UErrorCode error = U_ZERO_ERROR;
    filtered_.normalizeUTF8(0, icu::StringPiece(text->data(), static_cast<int32_t>(text->size())),
                            sink, nullptr, error);
    CHECK(U_SUCCESS(error));
    *text = std::move(normalized);
  }

 private:
  const icu::UnicodeSet known_;
  const icu::FilteredNormalizer2 filtered_;
};

// Character by character, without context: a final sigma stays an ordinary one, as in the
// reference.
class Lowercase : public NormalizerStep {
 public:
  void Apply(std::string* text) const override {
    std::string lowered;
    lowered.reserve(text->size());
    for (std::string_view rest = *text; !rest.empty();) {
      const Utf8Step step = ReadUtf8(rest);
      rest.remove_prefix(step.num_bytes);
      if (step.code_point == 0x130) {  // the one character whose lower case is two
        lowered += "i\xCC\x87";
      } else {
        AppendUtf8(ToLowerCase(step.code_point), &lowered);
      }
    }
    *text = std::move(lowered);
  }
};

class Strip : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  void Apply(std::string* text) const override {
    std::string_view rest = *text;
    size_t begin = 0;
    size_t end = 0;  // after the last character that is not white space
    bool seen = false;
    for (size_t at = 0; at < rest.size();) {
      const Utf8Step step = ReadUtf8(rest.substr(at));
      const bool is_space = IsWhitespace(step.code_point);
      if (!is_space && !seen) begin = at;
      seen = seen || !is_space;
      at += step.num_bytes;
      if (!is_space) end = at;
    }
    if (!left_) begin = 0;
    if (!seen) begin = left_ || right_ ? rest.size() : 0;
    if (!right_ || !seen) end = rest.size();
    *text = std::string(rest.substr(begin, end - begin));
  }

 private:
  const bool left_;
  const bool right_;
};

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void Apply(std::string* text) const override {
    if (!text->empty()) text->insert(0, prefix_);
  }

 private:
  const std::string prefix_;
};

class Replace : public NormalizerStep {
 public:
  Replace(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(std::string* text) const override { *text = pattern_.ReplaceAll(*text, content_); }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

using StepOr = absl::StatusOr<std::shared_ptr<const NormalizerStep>>;

StepOr MakeUnicodeForm(const JsonNode& node, const std::string& type) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = type == "NFC"    ? icu::Normalizer2::getNFCInstance(error)
                                 : type == "NFD"  ? icu::Normalizer2::getNFDInstance(error)
                                 : type == "NFKC" ? icu::Normalizer2::getNFKCInstance(error)
                                                  : icu::Normalizer2::getNFKDInstance(error);
  const icu::UnicodeSet known(UNICODE_STRING_SIMPLE("[:age=9.0:]"), error);
  if (U_FAILURE(error)) return node.Error(Concat("ICU has no data: ", u_errorName(error)));
  return std::make_shared<const UnicodeForm>(*form, known);
}

StepOr MakeStep(const JsonNode& node, const std::string& type) {
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    return MakeUnicodeForm(node, type);
  }
  if (type == "Lowercase") return std::make_shared<const Lowercase>();
  if (type == "Strip") {
    CHORUS_ASSIGN_OR_RETURN(const bool left, node.Member("strip_left").Bool());
    CHORUS_ASSIGN_OR_RETURN(const bool right, node.Member("strip_right").Bool());
    return std::make_shared<const Strip>(left, right);
  }
  if (type == "Prepend") {
    CHORUS_ASSIGN_OR_RETURN(std::string prefix, node.StringMember("prepend"));
    return std::make_shared<const Prepend>(std::move(prefix));
  }
  if (type == "Replace") {
    CHORUS_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Parse(node.Member("pattern")));
    CHORUS_ASSIGN_OR_RETURN(std::string content, node.StringMember("content"));
    return std::make_shared<const Replace>(std::move(pattern), std::move(content));
  }
  return node.Error(Concat("unknown type '", type, "'"));
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const JsonNode& node) {
  Normalizer normalizer;
  if (!node.IsNull()) CHORUS_RETURN_IF_ERROR(normalizer.AddSteps(node, 0));
  return normalizer;
}

absl::Status Normalizer::AddSteps(const JsonNode& node, int depth) {
  if (depth > kMaxNesting) return node.Error("nested too deeply");
  CHORUS_ASSIGN_OR_RETURN(const std::string type, node.StringMember("type"));
  if (type != "Sequence") {
    CHORUS_ASSIGN_OR_RETURN(auto step, MakeStep(node, type));
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  const JsonNode parts = node.Member("normalizers");
  if (!parts.IsArray()) return parts.Error("must be a list");
  for (size_t i = 0; i < parts.Size(); ++i) {
    CHORUS_RETURN_IF_ERROR(AddSteps(parts.Element(i), depth + 1));
  }
  return absl::OkStatus();
}

void Normalizer::Apply(std::string* text) const {
  for (const auto& step : steps_) step->Apply(text);
}

}  // namespace chorus
