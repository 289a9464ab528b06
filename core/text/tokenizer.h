#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/text/added_tokens.h"
#include "core/text/bpe_model.h"
#include "core/text/decoder.h"
#include "core/text/json_node.h"
#include "core/text/normalizer.h"
#include "core/text/pre_tokenizer.h"

namespace chorus {

// Whether spellings of special tokens ("<|im_start|>") are those tokens or ordinary text.
enum class SpecialTokens { kRecognize, kPlainText };

// A Hugging Face tokenizer.json file with a BPE model: byte-level (Llama 3, SmolLM2, GPT-2) or with
// byte fallback (Llama 2). Immutable and thread-safe.
//
// Ids and texts are those of PyPI `tokenizers` 0.22 (tests/text/tokenizer_parity.py). No BOS or EOS
// is ever added; "post_processor", "truncation" and "padding" have no effect on Encode. A file with
// a component that is not known here is refused, never approximated. No public C++ library reads
// these files with the same ids: sentencepiece knows only its own models, ICU only the normal
// forms.
//
// Example:
//   CHORUS_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Load(directory + "/tokenizer.json"));
//   std::vector<int32_t> ids = tokenizer->Encode("Hello", SpecialTokens::kPlainText);
class Tokenizer {
 public:
  // NotFound: no such file. InvalidArgument: malformed; the message begins with the file and names
  // the path in it, as in "pre_tokenizer.pretokenizers[1]: unknown type 'Foo'".
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
      const std::string& tokenizer_json_path);
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Parse(std::string_view json);

  // The ids of `text`; bytes that are not UTF-8 count as U+FFFD. With kPlainText the spellings of
  // *special* added tokens are ordinary text; added tokens that are not special still match.
  // Characters without a token vanish where the model has neither byte fallback nor unk_token (in
  // the default model: 21 rare bytes).
  std::vector<int32_t> Encode(std::string_view text, SpecialTokens special) const;

  // The text of `ids`, valid UTF-8. Ids without a token add nothing.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // The largest id + 1; ids need not be without gaps.
  int vocab_size() const { return static_cast<int>(is_special_.size()); }
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // OutOfRange for an id without a token.
  absl::StatusOr<std::string> IdToToken(int32_t id) const;
  bool IsSpecial(int32_t id) const;

  // The id that a "post_processor" of the file puts before every text (a TemplateProcessing whose
  // single template begins with a special token): that is how a file asks for a BOS.
  std::optional<int32_t> leading_token_id() const { return leading_token_id_; }

  // For Detokenizer. FindToken: nullptr for an id without a token.
  const Decoder& decoder() const { return decoder_; }
  const std::string* FindToken(int32_t id) const;

 private:
  Tokenizer(BpeModel model, Normalizer normalizer, PreTokenizer pre_tokenizer, AddedTokens added,
            Decoder decoder);

  // Encodes text that holds no added token of the first kind (normalized == false).
  void EncodeSegment(std::string_view segment, bool is_first, bool skip_special, TextArena* arena,
                     BpeScratch* scratch, std::vector<int32_t>* ids) const;
  absl::Status ReadPostProcessor(const JsonNode& node, int depth);

  const BpeModel model_;
  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const AddedTokens added_;
  const Decoder decoder_;
  std::vector<bool> is_special_;  // by id
  std::optional<int32_t> leading_token_id_;
};

}  // namespace chorus
