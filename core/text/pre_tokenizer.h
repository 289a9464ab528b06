#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "core/text/json_node.h"

namespace chorus {

// A part of the text that is tokenised on its own; a view of the text or of a TextArena.
struct TextPiece {
  std::string_view text;
  bool is_first = false;  // begins at the first byte of the whole text
};

// Texts made while splitting; what it holds does not move until it is cleared.
class TextArena {
 public:
  std::string_view Add(std::string text) { return texts_.emplace_back(std::move(text)); }
  void Clear() { texts_.clear(); }

 private:
  std::deque<std::string> texts_;
};

// One step of a pre-tokenizer: splits or rewrites every piece. Immutable and thread-safe.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Appends the parts of `piece` to `parts`; empty parts are left out.
  virtual void Apply(const TextPiece& piece, TextArena* arena,
                     std::vector<TextPiece>* parts) const = 0;
};

// The "pre_tokenizer" of a tokenizer.json file: Split, ByteLevel, Digits, Metaspace and Sequence.
// Immutable and thread-safe.
class PreTokenizer {
 public:
  // A null node gives a pre-tokenizer that splits nothing. InvalidArgument names an unknown type
  // and its path.
  static absl::StatusOr<PreTokenizer> Parse(const JsonNode& node);

  // Splits `piece` (valid UTF-8). The result views piece.text and `arena`.
  std::vector<TextPiece> Split(const TextPiece& piece, TextArena* arena) const;

 private:
  absl::Status AddSteps(const JsonNode& node, int depth);

  std::vector<std::shared_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace chorus
