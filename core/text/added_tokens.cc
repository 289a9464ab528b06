#include "core/text/added_tokens.h"

#include <algorithm>

#include "core/base/status_macros.h"
#include "core/text/absl_text.h"
#include "core/text/unicode_text.h"

namespace chorus {
namespace {

// The start of the white space that `text` ends with.
size_t WhitespaceAtEnd(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t previous = begin - 1;
    while (previous > 0 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) --previous;
    if (!IsWhitespace(ReadUtf8(text.substr(previous)).code_point)) break;
    begin = previous;
  }
  return begin;
}

// The length of the white space that `text` begins with.
size_t WhitespaceAtStart(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const Utf8Step step = ReadUtf8(text.substr(length));
    if (!IsWhitespace(step.code_point)) break;
    length += step.num_bytes;
  }
  return length;
}

}  // namespace

void AddedTokens::Trie::Add(std::string_view spelling, int32_t token) {
  if (spelling.empty()) return;
  if (token_of_node.empty()) token_of_node.push_back(-1);
  starts[static_cast<unsigned char>(spelling[0])] = true;
  int32_t node = 0;
  for (const char c : spelling) {
    const uint64_t key = static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(c);
    const auto [found, inserted] =
        children.try_emplace(key, static_cast<int32_t>(token_of_node.size()));
    if (inserted) token_of_node.push_back(-1);
    node = found->second;
  }
  if (token_of_node[node] < 0) token_of_node[node] = token;  // the first of equals counts
}

bool AddedTokens::Trie::Match(std::string_view text, int32_t* token, size_t* length) const {
  bool found_any = false;
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found =
        children.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[i]));
    if (found == children.end()) break;
    node = found->second;
    if (token_of_node[node] >= 0) {
      *token = token_of_node[node];
      *length = i + 1;
      found_any = true;
    }
  }
  return found_any;
}

absl::StatusOr<AddedToken> AddedTokens::ParseToken(const JsonNode& node) {
  if (!node.IsObject()) return node.Error("must be an object");
  AddedToken token;
  CHORUS_ASSIGN_OR_RETURN(token.content, node.StringMember("content"));
  if (token.content.empty()) return node.Member("content").Error("must not be empty");
  CHORUS_ASSIGN_OR_RETURN(const int64_t id, node.Member("id").Integer(BpeModel::kMaxId));
  token.id = static_cast<int32_t>(id);
  CHORUS_ASSIGN_OR_RETURN(token.special, node.BoolMember("special", false));
  CHORUS_ASSIGN_OR_RETURN(token.single_word, node.BoolMember("single_word", false));
  CHORUS_ASSIGN_OR_RETURN(token.lstrip, node.BoolMember("lstrip", false));
  CHORUS_ASSIGN_OR_RETURN(token.rstrip, node.BoolMember("rstrip", false));
  CHORUS_ASSIGN_OR_RETURN(token.normalized, node.BoolMember("normalized", !token.special));
  return token;
}

absl::StatusOr<AddedTokens> AddedTokens::Parse(const JsonNode& node, const BpeModel& model,
                                               const Normalizer& normalizer) {
  AddedTokens added;
  if (!node.IsNull() && !node.IsArray()) return node.Error("must be a list");
  int32_t next_id = model.num_tokens();
  for (size_t i = 0; i < node.Size(); ++i) {
    const JsonNode element = node.Element(i);
    CHORUS_ASSIGN_OR_RETURN(AddedToken token, ParseToken(element));
    const std::optional<int32_t> model_id = model.TokenToId(token.content);
    const int32_t expected_id = model_id.has_value() ? *model_id : next_id++;
    if (token.id != expected_id) {
      return element.Error(
          Concat("'", token.content, "' has id ", token.id, ", must be ", expected_id,
                 model_id ? ", its id in the vocabulary" : ", the next after the vocabulary"));
    }
    const int32_t index = static_cast<int32_t>(i);
    const bool is_new_content = added.index_of_content_.emplace(token.content, index).second;
    if (!is_new_content || !added.index_of_id_.emplace(token.id, index).second ||
        (!model_id && model.IdToToken(token.id) != nullptr)) {
      return element.Error(Concat("'", token.content, "' or its id is given twice"));
    }
    added.tokens_.push_back(std::move(token));
  }
  // Special tokens come first: where two normalised spellings are equal the first one counts.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < added.tokens_.size(); ++i) {
      const AddedToken& token = added.tokens_[i];
      if (token.special != special) continue;
      std::string spelling = token.content;
      if (token.normalized) normalizer.Apply(&spelling);
      added.tries_[token.normalized].Add(spelling, static_cast<int32_t>(i));
    }
  }
  return added;
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = index_of_id_.find(id);
  return found == index_of_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Find(std::string_view content) const {
  const auto found = index_of_content_.find(content);
  return found == index_of_content_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::IsSingleWord(std::string_view text, size_t begin, size_t end) const {
  if (begin > 0) {
    size_t previous = begin - 1;
    while (previous > 0 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) --previous;
    if (IsWordCharacter(ReadUtf8(text.substr(previous)).code_point)) return false;
  }
  return end == text.size() || !IsWordCharacter(ReadUtf8(text.substr(end)).code_point);
}

std::vector<TokenSpan> AddedTokens::Split(std::string_view text, bool normalized,
                                          bool skip_special) const {
  const Trie& trie = tries_[normalized];
  std::vector<TokenSpan> spans;
  size_t covered = 0;
  for (size_t at = 0; at < text.size() && !trie.token_of_node.empty();) {
    int32_t index = 0;
    size_t length = 0;
    if (!trie.starts[static_cast<unsigned char>(text[at])] ||
        !trie.Match(text.substr(at), &index, &length)) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at;
    size_t end = at + length;
    at = end;
    if (skip_special && token.special) continue;
    if (token.single_word && !IsSingleWord(text, begin, end)) continue;
    if (token.lstrip) begin = std::max(WhitespaceAtEnd(text.substr(0, begin)), covered);
    if (token.rstrip) end += WhitespaceAtStart(text.substr(end));
    if (covered < begin) spans.push_back({covered, begin, std::nullopt});
    spans.push_back({begin, end, token.id});
    // After white space swallowed on the right the search goes on inside it, so a token that is
    // itself white space can be found there and `covered` can step back, as in the reference.
    covered = end;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), std::nullopt});
  return spans;
}

}  // namespace chorus
