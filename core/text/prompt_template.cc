#include "core/text/prompt_template.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/json_node.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr int64_t kMaxFileBytes = 64 << 20;

// The texts that open a system turn and close it, for each family.
struct Turn {
  std::string_view open;
  std::string_view close;
};
constexpr Turn kChatMlSystem = {"<|im_start|>system\n", "<|im_end|>"};
constexpr Turn kLlama3System = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"};

// A JSON file that may be missing; then the document is null.
absl::StatusOr<nlohmann::json> LoadOptionalJson(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return nlohmann::json();
  CHORUS_RETURN_IF_ERROR(text.status());
  CHORUS_ASSIGN_OR_RETURN(nlohmann::json document, JsonNode::ParseDocument(*text, path));
  if (!document.is_object()) {
    return absl::InvalidArgumentError(Concat(path, ": must be an object"));
  }
  return document;
}

// "chat_template" is a string, or a list of {"name", "template"} of which "default" counts.
absl::StatusOr<std::string> ReadChatTemplate(const JsonNode& node) {
  if (node.IsNull()) return std::string();
  if (node.IsString()) return node.String();
  if (!node.IsArray()) return node.Error("must be a string or a list");
  std::string chosen;
  for (size_t i = 0; i < node.Size(); ++i) {
    CHORUS_ASSIGN_OR_RETURN(const std::string name, node.Element(i).StringMember("name"));
    CHORUS_ASSIGN_OR_RETURN(std::string text, node.Element(i).StringMember("template"));
    if (name == "default" || i == 0) chosen = std::move(text);
    if (name == "default") break;
  }
  return chosen;
}

// A token is given as its text, or as an object with "content".
absl::StatusOr<std::string> ReadTokenText(const JsonNode& node) {
  return node.IsObject() ? node.StringMember("content") : node.String();
}

absl::StatusOr<std::optional<int32_t>> ReadBos(const JsonNode& config, const Tokenizer& tokenizer) {
  const JsonNode add_bos = config.Member("add_bos_token");
  CHORUS_ASSIGN_OR_RETURN(const bool wanted, config.BoolMember("add_bos_token", false));
  if (!wanted && !add_bos.IsNull()) return std::nullopt;
  if (!wanted || tokenizer.leading_token_id().has_value()) return tokenizer.leading_token_id();
  const JsonNode token_node = config.Member("bos_token");
  CHORUS_ASSIGN_OR_RETURN(const std::string token, ReadTokenText(token_node));
  const std::optional<int32_t> id = tokenizer.TokenToId(token);
  if (!id.has_value()) {
    return token_node.Error(Concat("'", token, "' is not in the vocabulary"));
  }
  return id;
}

std::optional<int32_t> FindNamedBos(const JsonNode& config, const Tokenizer& tokenizer) {
  const absl::StatusOr<std::string> token = ReadTokenText(config.Member("bos_token"));
  return token.ok() ? tokenizer.TokenToId(*token) : std::nullopt;
}

// An id or a list of ids; appended without repetitions.
absl::Status ReadIds(const JsonNode& node, std::vector<int32_t>* ids) {
  const size_t count = node.IsArray() ? node.Size() : node.IsNull() ? 0 : 1;
  for (size_t i = 0; i < count; ++i) {
    const JsonNode element = node.IsArray() ? node.Element(i) : node;
    CHORUS_ASSIGN_OR_RETURN(const int64_t id, element.Integer(std::numeric_limits<int32_t>::max()));
    if (std::find(ids->begin(), ids->end(), id) == ids->end()) {
      ids->push_back(static_cast<int32_t>(id));
    }
  }
  return absl::OkStatus();
}

// One character of a Jinja string literal, or of the text outside one, at the head of `text`.
std::string_view UnescapeStep(std::string_view text, bool in_literal, size_t* num_bytes) {
  *num_bytes = static_cast<size_t>(ReadUtf8(text).num_bytes);
  if (!in_literal || text[0] != '\\' || text.size() < 2) return text.substr(0, *num_bytes);
  *num_bytes = 2;
  if (text[1] == 'n') return "\n";
  if (text[1] == 't') return "\t";
  if (text[1] == 'r') return "\r";
  return text.substr(1, 1);  // \' \" \\ stand for the character itself
}

// The text after `at` up to turn.close, if the template spells it out in one piece: in one string
// literal, or outside any. nullopt if it is put together from parts, or at does not begin the turn.
std::optional<std::string> ReadLiteralTurn(std::string_view text, size_t at, const Turn& turn) {
  const char quote = at > 0 && (text[at - 1] == '\'' || text[at - 1] == '"') ? text[at - 1] : '\0';
  std::string message;
  size_t num_bytes = 0;
  for (std::string_view rest = text.substr(at); !rest.empty(); rest.remove_prefix(num_bytes)) {
    if (rest.substr(0, turn.close.size()) == turn.close) {
      if (message.substr(0, turn.open.size()) != turn.open) return std::nullopt;
      return message.substr(turn.open.size());
    }
    const bool ends =
        quote != '\0' ? rest[0] == quote : rest.substr(0, 2) == "{{" || rest.substr(0, 2) == "{%";
    if (ends) return std::nullopt;
    message += UnescapeStep(rest, quote != '\0', &num_bytes);
  }
  return std::nullopt;
}

std::string FindDefaultSystem(std::string_view chat_template, const Turn& turn) {
  // The opening up to its line feed, which a template may write as "\n".
  const std::string_view marker = turn.open.substr(0, turn.open.find('\n'));
  for (size_t at = chat_template.find(marker); at != std::string_view::npos;
       at = chat_template.find(marker, at + 1)) {
    std::optional<std::string> message = ReadLiteralTurn(chat_template, at, turn);
    if (message.has_value() && !message->empty()) return *std::move(message);
  }
  return std::string();
}

absl::Status ReadFamily(const std::string& directory, const JsonNode& config, TextConfig* result) {
  const std::string jinja_path = Concat(directory, "/chat_template.jinja");
  absl::StatusOr<std::string> chat_template = ReadSmallFile(jinja_path, kMaxFileBytes);
  if (absl::IsNotFound(chat_template.status())) {
    chat_template = ReadChatTemplate(config.Member("chat_template"));
  }
  CHORUS_RETURN_IF_ERROR(chat_template.status());
  if (!IsValidUtf8(*chat_template)) {
    return absl::InvalidArgumentError(Concat(jinja_path, ": is not valid UTF-8"));
  }
  if (chat_template->find("<|im_start|>") != std::string::npos) {
    result->family = TemplateKind::kChatMl;
    result->default_system = FindDefaultSystem(*chat_template, kChatMlSystem);
  } else if (chat_template->find("<|start_header_id|>") != std::string::npos) {
    result->family = TemplateKind::kLlama3;
    result->default_system = FindDefaultSystem(*chat_template, kLlama3System);
  }
  return absl::OkStatus();
}

absl::Status ReadEos(const std::string& directory, const JsonNode& tokenizer_config,
                     const Tokenizer& tokenizer, TextConfig* result) {
  for (const std::string_view name : {"generation_config.json", "config.json"}) {
    const std::string path = Concat(directory, "/", name);
    CHORUS_ASSIGN_OR_RETURN(const nlohmann::json document, LoadOptionalJson(path));
    const JsonNode ids = JsonNode(&document, Concat(path, ": ")).Member("eos_token_id");
    CHORUS_RETURN_IF_ERROR(ReadIds(ids, &result->eos_token_ids));
    if (!result->eos_token_ids.empty()) return absl::OkStatus();
  }
  const JsonNode token_node = tokenizer_config.Member("eos_token");
  if (token_node.IsNull()) return absl::OkStatus();
  CHORUS_ASSIGN_OR_RETURN(const std::string token, ReadTokenText(token_node));
  const std::optional<int32_t> id = tokenizer.TokenToId(token);
  if (!id.has_value()) {
    return token_node.Error(Concat("'", token, "' is not in the vocabulary"));
  }
  result->eos_token_ids.push_back(*id);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextConfig> LoadTextConfig(const std::string& model_directory,
                                          const Tokenizer& tokenizer) {
  std::error_code error;
  if (!std::filesystem::is_directory(model_directory, error)) {
    return absl::NotFoundError(Concat(model_directory, ": no such directory"));
  }
  const std::string path = Concat(model_directory, "/tokenizer_config.json");
  CHORUS_ASSIGN_OR_RETURN(const nlohmann::json document, LoadOptionalJson(path));
  const JsonNode config(&document, Concat(path, ": "));
  TextConfig result;
  CHORUS_RETURN_IF_ERROR(ReadFamily(model_directory, config, &result));
  CHORUS_ASSIGN_OR_RETURN(result.bos_token_id, ReadBos(config, tokenizer));
  result.named_bos_token_id = result.bos_token_id.has_value() ? result.bos_token_id
                                                              : FindNamedBos(config, tokenizer);
  CHORUS_RETURN_IF_ERROR(ReadEos(model_directory, config, tokenizer, &result));
  return result;
}

PromptFrame MakePromptFrame(TemplateKind kind, std::string_view system) {
  CHECK(kind != TemplateKind::kAuto);
  PromptFrame frame;
  if (kind == TemplateKind::kChatMl) {
    if (!system.empty()) {
      frame.prefix = Concat(kChatMlSystem.open, system, kChatMlSystem.close, "\n");
    }
    frame.prefix += "<|im_start|>user\n";
    frame.suffix = "<|im_end|>\n<|im_start|>assistant\n";
  }
  if (kind == TemplateKind::kLlama3) {
    if (!system.empty()) {
      frame.prefix = Concat(kLlama3System.open, system, kLlama3System.close);
    }
    frame.prefix += "<|start_header_id|>user<|end_header_id|>\n\n";
    frame.suffix = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
  }
  return frame;
}

FrameTokens EncodeFrame(const FrameText& text, const TextConfig& config,
                        const Tokenizer& tokenizer) {
  PromptFrame frame;
  if (text.kind.has_value() || (!text.prefix.has_value() && !text.suffix.has_value())) {
    TemplateKind kind = text.kind.value_or(TemplateKind::kAuto);
    if (kind == TemplateKind::kAuto) kind = config.family;
    frame = MakePromptFrame(kind, text.system.value_or(config.default_system));
  }
  FrameTokens tokens = {
      .prefix = tokenizer.Encode(text.prefix.value_or(frame.prefix), SpecialTokens::kRecognize),
      .suffix = tokenizer.Encode(text.suffix.value_or(frame.suffix), SpecialTokens::kRecognize),
      .separator = tokenizer.Encode(text.separator, SpecialTokens::kRecognize)};
  // Once: a template or a caller may have spelled it out already.
  const std::optional<int32_t> bos = config.bos_token_id;
  if (bos.has_value() && (tokens.prefix.empty() || tokens.prefix.front() != *bos)) {
    tokens.prefix.insert(tokens.prefix.begin(), *bos);
  }
  return tokens;
}

}  // namespace chorus
