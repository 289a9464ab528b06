#include "core/text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/detokenizer.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

constexpr int kMaxNesting = 16;
constexpr int64_t kMaxFileBytes = 256 << 20;  // the largest published files have some 30 MB

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::string& tokenizer_json_path) {
  CHORUS_ASSIGN_OR_RETURN(const std::string json,
                          ReadSmallFile(tokenizer_json_path, kMaxFileBytes));
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer = Parse(json);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        Concat(tokenizer_json_path, ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Parse(std::string_view json) {
  CHORUS_ASSIGN_OR_RETURN(const nlohmann::json document,
                          JsonNode::ParseDocument(json, "the tokenizer"));
  const JsonNode root(&document, "");
  if (!root.IsObject()) return root.Error("must be an object");
  CHORUS_ASSIGN_OR_RETURN(const std::string version, root.StringMember("version", "1.0"));
  if (version != "1.0") return root.Member("version").Error("must be \"1.0\"");
  CHORUS_ASSIGN_OR_RETURN(BpeModel model, BpeModel::Parse(root.Member("model")));
  CHORUS_ASSIGN_OR_RETURN(Normalizer normalizer, Normalizer::Parse(root.Member("normalizer")));
  CHORUS_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                          PreTokenizer::Parse(root.Member("pre_tokenizer")));
  CHORUS_ASSIGN_OR_RETURN(AddedTokens added,
                          AddedTokens::Parse(root.Member("added_tokens"), model, normalizer));
  CHORUS_ASSIGN_OR_RETURN(Decoder decoder, Decoder::Parse(root.Member("decoder")));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(model), std::move(normalizer),
                                                     std::move(pre_tokenizer), std::move(added),
                                                     std::move(decoder)));
  CHORUS_RETURN_IF_ERROR(tokenizer->ReadPostProcessor(root.Member("post_processor"), 0));
  return std::unique_ptr<const Tokenizer>(std::move(tokenizer));
}

Tokenizer::Tokenizer(BpeModel model, Normalizer normalizer, PreTokenizer pre_tokenizer,
                     AddedTokens added, Decoder decoder)
    : model_(std::move(model)),
      normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      added_(std::move(added)),
      decoder_(std::move(decoder)) {
  int32_t max_id = model_.max_id();
  for (const AddedToken& token : added_.tokens()) max_id = std::max(max_id, token.id);
  is_special_.assign(static_cast<size_t>(max_id) + 1, false);
  for (const AddedToken& token : added_.tokens()) is_special_[token.id] = token.special;
}

absl::Status Tokenizer::ReadPostProcessor(const JsonNode& node, int depth) {
  if (node.IsNull()) return absl::OkStatus();
  if (depth > kMaxNesting) return node.Error("nested too deeply");
  CHORUS_ASSIGN_OR_RETURN(const std::string type, node.StringMember("type"));
  if (type == "Sequence") {
    const JsonNode parts = node.Member("processors");
    if (!parts.IsArray()) return parts.Error("must be a list");
    for (size_t i = 0; i < parts.Size(); ++i) {
      CHORUS_RETURN_IF_ERROR(ReadPostProcessor(parts.Element(i), depth + 1));
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") return absl::OkStatus();  // adjusts offsets only
  if (type != "TemplateProcessing") return node.Error(Concat("unknown type '", type, "'"));
  const JsonNode single = node.Member("single");
  if (!single.IsArray()) return single.Error("must be a list");
  if (single.Size() == 0) return absl::OkStatus();
  const JsonNode first = single.Element(0).Member("SpecialToken");
  if (first.IsNull()) return absl::OkStatus();
  CHORUS_ASSIGN_OR_RETURN(const std::string name, first.StringMember("id"));
  const JsonNode ids = node.Member("special_tokens").Member(name).Member("ids");
  if (!ids.IsArray() || ids.Size() != 1) return ids.Error("must be a list of one id");
  CHORUS_ASSIGN_OR_RETURN(const int64_t id, ids.Element(0).Integer(BpeModel::kMaxId));
  if (FindToken(static_cast<int32_t>(id)) == nullptr) {
    return ids.Error(Concat("no token has the id ", id));
  }
  leading_token_id_ = static_cast<int32_t>(id);
  return absl::OkStatus();
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, SpecialTokens special) const {
  std::string valid;
  if (!IsValidUtf8(text)) {
    valid = ToValidUtf8(text);
    text = valid;
  }
  const bool skip_special = special == SpecialTokens::kPlainText;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  TextArena arena;
  BpeScratch scratch;
  for (const TokenSpan& span : added_.Split(text, /*normalized=*/false, skip_special)) {
    if (span.id.has_value()) {
      ids.push_back(*span.id);
      continue;
    }
    EncodeSegment(text.substr(span.begin, span.end - span.begin), span.begin == 0, skip_special,
                  &arena, &scratch, &ids);
  }
  return ids;
}

void Tokenizer::EncodeSegment(std::string_view segment, bool is_first, bool skip_special,
                              TextArena* arena, BpeScratch* scratch,
                              std::vector<int32_t>* ids) const {
  std::string normalized;
  if (!normalizer_.IsIdentity()) {
    normalized = segment;
    normalizer_.Apply(&normalized);
    segment = normalized;
  }
  for (const TokenSpan& span : added_.Split(segment, /*normalized=*/true, skip_special)) {
    if (span.id.has_value()) {
      ids->push_back(*span.id);
      continue;
    }
    const TextPiece piece = {segment.substr(span.begin, span.end - span.begin),
                             is_first && span.begin == 0};
    for (const TextPiece& word : pre_tokenizer_.Split(piece, arena)) {
      model_.Encode(word.text, is_special_, scratch, ids);
    }
    arena->Clear();
  }
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(this, skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Append(id);
  text += detokenizer.Flush();
  return text;
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (const AddedToken* added = added_.Find(token)) return added->id;
  return model_.TokenToId(token);
}

absl::StatusOr<std::string> Tokenizer::IdToToken(int32_t id) const {
  const std::string* token = FindToken(id);
  if (token == nullptr) return absl::OutOfRangeError(Concat("no token has the id ", id));
  return *token;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < is_special_.size() && is_special_[id];
}

const std::string* Tokenizer::FindToken(int32_t id) const {
  if (const AddedToken* added = added_.Find(id)) return &added->content;
  return model_.IdToToken(id);
}

}  // namespace chorus
