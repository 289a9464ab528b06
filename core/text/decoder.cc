#include "core/text/decoder.h"

#include <functional>
#include <optional>
#include <utility>

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/byte_level.h"
#include "core/text/text_pattern.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr int kMaxNesting = 16;
constexpr int64_t kMaxStrip = 1 << 20;

// Makes stages by calling a function.
class FunctionFactory : public Decoder::Factory {
 public:
  explicit FunctionFactory(std::function<std::unique_ptr<DecodeStage>()> make)
      : make_(std::move(make)) {}
  std::unique_ptr<DecodeStage> Make() const override { return make_(); }

 private:
  const std::function<std::unique_ptr<DecodeStage>()> make_;
};

// A stage that holds nothing back: one token in, one out.
class StatelessStage : public DecodeStage {
 public:
  void Flush(std::vector<std::string>*) override {}
};

// Without a decoder the reference joins tokens with spaces.
class JoinStage : public StatelessStage {
 public:
  void Push(std::string_view token, std::vector<std::string>* output) override {
    output->push_back(Concat(is_first_ ? "" : " ", token));
    is_first_ = false;
  }

 private:
  bool is_first_ = true;
};

// Characters of GPT-2's alphabet back to bytes; a token with any other character stands for its own
// bytes. Holds back the bytes of an unfinished character; bytes that are not UTF-8 become U+FFFD.
class ByteLevelStage : public DecodeStage {
 public:
  void Push(std::string_view token, std::vector<std::string>* output) override {
    const size_t begin = bytes_.size();
    for (std::string_view rest = token; !rest.empty();) {
      const Utf8Step step = ReadUtf8(rest);
      const std::optional<uint8_t> byte = ByteOfCharacter(step.code_point);
      if (!byte.has_value()) {
        bytes_.resize(begin);
        bytes_ += token;
        break;
      }
      bytes_.push_back(static_cast<char>(*byte));
      rest.remove_prefix(step.num_bytes);
    }
    const size_t complete = bytes_.size() - NumTruncatedBytes(bytes_);
    if (complete == 0) return;
    output->push_back(ToValidUtf8(std::string_view(bytes_).substr(0, complete)));
    bytes_.erase(0, complete);
  }

  void Flush(std::vector<std::string>* output) override {
    if (!bytes_.empty()) output->push_back(ToValidUtf8(bytes_));
    bytes_.clear();
  }

 private:
  std::string bytes_;
};

class ReplaceStage : public StatelessStage {
 public:
  ReplaceStage(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Push(std::string_view token, std::vector<std::string>* output) override {
    output->push_back(pattern_.ReplaceAll(token, content_));
  }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

// Runs of "<0x41>" become their bytes if the whole run is UTF-8, else one U+FFFD a byte. So a run
// is held back until another token ends it: only then is its first character known.
class ByteFallbackStage : public DecodeStage {
 public:
  void Push(std::string_view token, std::vector<std::string>* output) override {
    if (const std::optional<char> byte = ParseByte(token)) {
      bytes_.push_back(*byte);
      return;
    }
    Flush(output);
    output->emplace_back(token);
  }

  void Flush(std::vector<std::string>* output) override {
    if (bytes_.empty()) return;
    if (IsValidUtf8(bytes_)) {
      output->push_back(bytes_);
    } else {
      output->insert(output->end(), bytes_.size(), std::string(kReplacementCharacter));
    }
    bytes_.clear();
  }

 private:
  // "<0xHH>". Rust's from_str_radix, which the reference uses, takes a sign too: "<0x+A>".
  static std::optional<char> ParseByte(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
    std::string_view digits = token.substr(3, 2);
    if (digits[0] == '+') digits.remove_prefix(1);
    int value = 0;
    for (const char c : digits) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return std::nullopt;
      value = value * 16 + digit;
    }
    return static_cast<char>(value);
  }

  std::string bytes_;
};

// Removes up to `start` copies of a character at the head and up to `stop` at the end: of every
// token, or of all the text where it stands behind a fusing stage.
class StripStage : public DecodeStage {
 public:
  StripStage(std::string content, int64_t start, int64_t stop, bool is_fused)
      : content_(std::move(content)), start_(start), stop_(stop), is_fused_(is_fused) {}

  void Push(std::string_view token, std::vector<std::string>* output) override {
    if (!is_fused_) num_cut_ = 0;
    while (num_cut_ < start_ && Begins(token)) {
      token.remove_prefix(content_.size());
      ++num_cut_;
    }
    if (!token.empty()) num_cut_ = start_;  // the head is over
    // Copies at the end, up to `stop`, wait: they are cut if nothing follows.
    std::string text = Concat(held_, token);
    size_t end = text.size();
    for (int64_t i = 0; i < stop_ && Ends(std::string_view(text).substr(0, end)); ++i) {
      end -= content_.size();
    }
    held_ = is_fused_ ? text.substr(end) : "";
    text.resize(end);
    output->push_back(std::move(text));
  }

  void Flush(std::vector<std::string>*) override { held_.clear(); }

 private:
  bool Begins(std::string_view text) const { return text.substr(0, content_.size()) == content_; }
  bool Ends(std::string_view text) const {
    return text.size() >= content_.size() && text.substr(text.size() - content_.size()) == content_;
  }

  const std::string content_;
  const int64_t start_;
  const int64_t stop_;
  const bool is_fused_;
  int64_t num_cut_ = 0;
  std::string held_;
};

// The meta symbol becomes a space; in the first token it vanishes unless the scheme is "never".
class MetaspaceStage : public StatelessStage {
 public:
  MetaspaceStage(std::string replacement, bool keeps_first, bool is_fused)
      : replacement_(std::move(replacement)), keeps_first_(keeps_first), is_fused_(is_fused) {}

  void Push(std::string_view token, std::vector<std::string>* output) override {
    const std::string_view space = is_first_ && !keeps_first_ ? "" : " ";
    std::string text;
    while (!token.empty()) {
      const bool is_symbol = token.substr(0, replacement_.size()) == replacement_;
      const size_t length = is_symbol ? replacement_.size() : ReadUtf8(token).num_bytes;
      text += is_symbol ? space : token.substr(0, length);
      token.remove_prefix(length);
    }
    output->push_back(std::move(text));
    if (!is_fused_) is_first_ = false;
  }

 private:
  const std::string replacement_;
  const bool keeps_first_;
  const bool is_fused_;
  bool is_first_ = true;
};

using FactoryOr = absl::StatusOr<std::shared_ptr<const Decoder::Factory>>;

template <typename Make>
FactoryOr FactoryOf(Make make) {
  return std::make_shared<const FunctionFactory>(std::move(make));
}

absl::StatusOr<std::string> OneCharacter(const JsonNode& node) {
  CHORUS_ASSIGN_OR_RETURN(std::string character, node.String());
  if (character.empty() || static_cast<size_t>(ReadUtf8(character).num_bytes) != character.size()) {
    return node.Error("must be one character");
  }
  return character;
}

FactoryOr MakeStrip(const JsonNode& node, bool is_fused) {
  CHORUS_ASSIGN_OR_RETURN(std::string content, OneCharacter(node.Member("content")));
  CHORUS_ASSIGN_OR_RETURN(const int64_t start, node.Member("start").Integer(kMaxStrip));
  CHORUS_ASSIGN_OR_RETURN(const int64_t stop, node.Member("stop").Integer(kMaxStrip));
  return FactoryOf([=] { return std::make_unique<StripStage>(content, start, stop, is_fused); });
}

FactoryOr MakeMetaspace(const JsonNode& node, bool is_fused) {
  CHORUS_ASSIGN_OR_RETURN(std::string replacement, OneCharacter(node.Member("replacement")));
  CHORUS_ASSIGN_OR_RETURN(const std::string scheme, node.StringMember("prepend_scheme", "always"));
  const bool keeps_first = scheme == "never";
  return FactoryOf(
      [=] { return std::make_unique<MetaspaceStage>(replacement, keeps_first, is_fused); });
}

FactoryOr MakeReplace(const JsonNode& node, bool is_fused) {
  if (is_fused)
    return node.Error("a Replace behind a decoder that fuses tokens cannot be streamed");
  CHORUS_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::Parse(node.Member("pattern")));
  CHORUS_ASSIGN_OR_RETURN(std::string content, node.StringMember("content"));
  return FactoryOf([=] { return std::make_unique<ReplaceStage>(pattern, content); });
}

}  // namespace

absl::StatusOr<Decoder> Decoder::Parse(const JsonNode& node) {
  Decoder decoder;
  if (node.IsNull()) {
    decoder.stages_.push_back(
        std::make_shared<const FunctionFactory>([] { return std::make_unique<JoinStage>(); }));
    return decoder;
  }
  CHORUS_RETURN_IF_ERROR(decoder.AddStages(node, 0));
  return decoder;
}

absl::Status Decoder::AddStages(const JsonNode& node, int depth) {
  if (depth > kMaxNesting) return node.Error("nested too deeply");
  CHORUS_ASSIGN_OR_RETURN(const std::string type, node.StringMember("type"));
  if (type == "Sequence") {
    const JsonNode parts = node.Member("decoders");
    if (!parts.IsArray()) return parts.Error("must be a list");
    for (size_t i = 0; i < parts.Size(); ++i) {
      CHORUS_RETURN_IF_ERROR(AddStages(parts.Element(i), depth + 1));
    }
    return absl::OkStatus();
  }
  if (type == "Fuse") {
    is_fused_ = true;
    return absl::OkStatus();
  }
  FactoryOr stage = node.Error(Concat("unknown type '", type, "'"));
  if (type == "Replace") stage = MakeReplace(node, is_fused_);
  if (type == "Strip") stage = MakeStrip(node, is_fused_);
  if (type == "Metaspace") stage = MakeMetaspace(node, is_fused_);
  if (type == "ByteLevel" || type == "ByteFallback") {
    if (is_fused_) return node.Error("must not stand behind a decoder that fuses tokens");
    is_fused_ = type == "ByteLevel";
    stage = is_fused_ ? FactoryOf([] { return std::make_unique<ByteLevelStage>(); })
                      : FactoryOf([] { return std::make_unique<ByteFallbackStage>(); });
  }
  CHORUS_RETURN_IF_ERROR(stage.status());
  stages_.push_back(*std::move(stage));
  return absl::OkStatus();
}

std::vector<std::unique_ptr<DecodeStage>> Decoder::Start() const {
  std::vector<std::unique_ptr<DecodeStage>> stages;
  stages.reserve(stages_.size());
  for (const auto& stage : stages_) stages.push_back(stage->Make());
  return stages;
}

}  // namespace chorus
