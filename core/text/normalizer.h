#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/text/json_node.h"

namespace chorus {

// One step of a normalizer. Immutable and thread-safe.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  virtual void Apply(std::string* text) const = 0;
};

// The "normalizer" of a tokenizer.json file: NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend,
// Replace and Sequence. Immutable and thread-safe.
//
// Two deliberate details of the reference (tokenizers 0.22): its normalization forms are those of
// Unicode 9, later characters pass through unchanged; Prepend leaves an empty text empty.
class Normalizer {
 public:
  // A null node gives a normalizer without steps. InvalidArgument names an unknown type and its
  // path.
  static absl::StatusOr<Normalizer> Parse(const JsonNode& node);

  bool IsIdentity() const { return steps_.empty(); }
  // `text` must be valid UTF-8 and stays so.
  void Apply(std::string* text) const;

 private:
  absl::Status AddSteps(const JsonNode& node, int depth);

  std::vector<std::shared_ptr<const NormalizerStep>> steps_;
};

}  // namespace chorus
