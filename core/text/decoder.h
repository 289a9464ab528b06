#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "core/text/json_node.h"

namespace chorus {

// One running decoder stage: takes token texts one by one, returns text that can no longer change.
// Used by one thread.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  // Appends to `output` what `token` completes. Tokens are told apart before a fusing stage; behind
  // one everything belongs to a single token.
  virtual void Push(std::string_view token, std::vector<std::string>* output) = 0;
  // The sequence ends: appends what was held back.
  virtual void Flush(std::vector<std::string>* output) = 0;
};

// The "decoder" of a tokenizer.json file: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace,
// Sequence; none joins tokens with a space. Immutable and thread-safe.
class Decoder {
 public:
  // InvalidArgument names an unknown type and its path, and a Replace behind a fusing stage, which
  // could change text that was already streamed.
  static absl::StatusOr<Decoder> Parse(const JsonNode& node);

  // A fresh run of all stages.
  std::vector<std::unique_ptr<DecodeStage>> Start() const;

  // The description of one stage, which makes running ones.
  class Factory {
   public:
    virtual ~Factory() = default;
    virtual std::unique_ptr<DecodeStage> Make() const = 0;
  };

 private:
  absl::Status AddStages(const JsonNode& node, int depth);

  std::vector<std::shared_ptr<const Factory>> stages_;
  bool is_fused_ = false;  // while parsing: a stage so far makes one token of all
};

}  // namespace chorus
