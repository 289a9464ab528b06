#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/model_runner.h"
#include "core/engine/request.h"
#include "core/text/prompt_template.h"
#include "core/text/tokenizer.h"

namespace chorus {

inline constexpr size_t kMaxRequestIdBytes = 128;

struct ParseLimits {
  int32_t vocab_size = 0;          // of the model: token ids are below this
  int32_t max_request_tokens = 0;  // texts that could not fit are refused before they are tokenised
};

// What a request gets where the caller left it open.
struct RequestDefaults {
  std::string id;
  uint64_t seed = 0;
};

// chorus.v1.GenerateRequest or ScoreRequest -> Request: template, BOS, tokenising, defaults, and every check that
// needs the caller's words. Ranges that the engine owns (sampling, stopping, fusion weights,
// context) are checked by Engine::Submit, with field paths of the same form. Pure; thread-safe.
class RequestParser {
 public:
  // `tokenizer` must outlive the parser.
  RequestParser(const Tokenizer* tokenizer, TextConfig text_config, ParseLimits limits);

  // INVALID_ARGUMENT made by FieldError names the field, the value and the limit. The deadline is
  // left at InfiniteFuture.
  absl::StatusOr<Request> Parse(const v1::GenerateRequest& proto, RequestDefaults defaults) const;
  absl::StatusOr<Request> Parse(const v1::ScoreRequest& proto, RequestDefaults defaults) const;

  // Bytes of text that Parse would tokenise: a measure of how long it takes.
  static size_t TextBytes(const v1::GenerateRequest& proto);
  static size_t TextBytes(const v1::ScoreRequest& proto);

  const TextConfig& text_config() const { return text_config_; }

 private:
  absl::Status ParsePrompt(const v1::Prompt& prompt, Request* request) const;
  absl::Status ParseText(const v1::TextPrompt& text, Request* request) const;
  void EncodeFrame(const v1::TextPrompt& text, Request* request) const;
  absl::Status ParseTokens(const v1::TokenPrompt& tokens, Request* request) const;
  absl::Status ParseContinuations(const v1::ScoreRequest& proto, ScoreParams* score) const;
  // Refuses texts that could not fit.
  absl::Status CheckTextBytes(const std::string& field, int64_t bytes) const;

  const Tokenizer* const tokenizer_;
  const TextConfig text_config_;
  const ParseLimits limits_;
};

// Layers, heads and steps of an ExplainRequest with its defaults; Engine::Submit checks them.
ExplainParams ParseExplain(const v1::ExplainRequest& proto, const ModelInfo& info);

}  // namespace chorus
