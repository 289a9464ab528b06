#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "core/text/absl_text.h"
#include "core/text/bpe_model.h"
#include "core/text/json_node.h"
#include "core/text/normalizer.h"

namespace chorus {

// An entry of "added_tokens": a spelling that is cut out of the text before the model sees it.
struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // swallows white space behind it
  bool normalized = false;   // looked for in the normalised text, in its normalised spelling
  bool special = false;
};

// A part of a text: an added token's id, or ordinary text.
struct TokenSpan {
  size_t begin = 0;
  size_t end = 0;
  std::optional<int32_t> id;
};

// All added tokens of a tokenizer, and the search for them: leftmost, then longest. Immutable and
// thread-safe. A trie walked from every position that can start a spelling; Aho-Corasick was looked
// at and left, because spellings are short and nearly all begin with the same rare character.
class AddedTokens {
 public:
  // `node`: the list, or null. InvalidArgument with the path: mistyped members, a spelling given
  // twice, an id that is not the one the reference would give: the vocabulary's where the spelling
  // is in it, else the next free one in the order of the list.
  static absl::StatusOr<AddedTokens> Parse(const JsonNode& node, const BpeModel& model,
                                           const Normalizer& normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  // nullptr if `id` is no added token.
  const AddedToken* Find(int32_t id) const;
  const AddedToken* Find(std::string_view content) const;

  // Cuts `text` (valid UTF-8) at the tokens with normalized == `normalized`. With `skip_special` a
  // special token's spelling counts as text (and still hides tokens inside it, as in the
  // reference).
  std::vector<TokenSpan> Split(std::string_view text, bool normalized, bool skip_special) const;

 private:
  // Node 0 is the root.
  struct Trie {
    absl::flat_hash_map<uint64_t, int32_t> children;  // node << 8 | byte
    std::vector<int32_t> token_of_node;               // index into tokens_, or -1
    bool starts[256] = {};

    void Add(std::string_view spelling, int32_t token);
    // The longest spelling at the head of `text`; false if there is none.
    bool Match(std::string_view text, int32_t* token, size_t* length) const;
  };

  static absl::StatusOr<AddedToken> ParseToken(const JsonNode& node);
  bool IsSingleWord(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;  // in the order of the file
  absl::flat_hash_map<int32_t, int32_t> index_of_id_;
  absl::flat_hash_map<std::string, int32_t, TextHash, TextEqual> index_of_content_;
  Trie tries_[2];  // by `normalized`
};

}  // namespace chorus
