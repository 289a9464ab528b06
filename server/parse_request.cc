#include "server/parse_request.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/engine/request_validation.h"

namespace chorus {
namespace {

// No text of ordinary words comes near 64 bytes a token; what is longer could only be refused
// after the work of tokenising it.
constexpr int64_t kMaxTextBytesPerToken = 64;
constexpr int32_t kMaxPriority = 100;
constexpr int32_t kMaxLogitBiases = 1024;
constexpr int32_t kMaxAllowedTokens = 65536;

absl::Status CheckCount(const char* field, int64_t count, int64_t limit) {
  if (count <= limit) return absl::OkStatus();
  return FieldError(field, absl::StrCat(count, " entries"),
                    absl::StrCat("must have at most ", limit));
}

absl::Status CheckFinite(std::string_view field, float value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(value), "must be finite");
}

// An unknown enum value is refused: an old server must not silently do something else.
template <typename IsValid>
absl::Status CheckEnum(const char* field, int value, IsValid is_valid) {
  if (is_valid(value)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(value), "must be a value that this server knows");
}

absl::Status CheckTokenIds(const std::string& field,
                           const google::protobuf::RepeatedField<int32_t>& ids,
                           int32_t vocab_size) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return FieldError(absl::StrCat(field, ".token_ids[", i, "]"), absl::StrCat(ids[i]),
                      absl::StrCat("must be in [0, ", vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::Status ParseId(const std::string& id, RequestDefaults* defaults, Request* request) {
  if (id.size() > kMaxRequestIdBytes) {
    return FieldError("request_id", absl::StrCat(id.size(), " bytes"),
                      absl::StrCat("must have at most ", kMaxRequestIdBytes, " bytes"));
  }
  for (size_t i = 0; i < id.size(); ++i) {
    const auto byte = static_cast<unsigned char>(id[i]);
    if (byte >= 0x20 && byte < 0x7F) continue;
    return FieldError("request_id", absl::StrCat("byte ", byte, " at ", i),
                      "must be printable ASCII");
  }
  request->id = id.empty() ? std::move(defaults->id) : id;
  return absl::OkStatus();
}

absl::Status ParsePriority(int32_t priority, Request* request) {
  if (priority < -kMaxPriority || priority > kMaxPriority) {
    return FieldError("priority", absl::StrCat(priority),
                      absl::StrCat("must be in [", -kMaxPriority, ", ", kMaxPriority, "]"));
  }
  request->priority = priority;
  return absl::OkStatus();
}

absl::Status ParseFusion(const v1::Fusion& proto, FusionParams* fusion) {
  CHORUS_RETURN_IF_ERROR(CheckEnum("fusion.method", proto.method(), v1::FusionMethod_IsValid));
  CHORUS_RETURN_IF_ERROR(
      CheckEnum("fusion.positions", proto.positions(), v1::PositionMode_IsValid));
  CHORUS_RETURN_IF_ERROR(
      CheckEnum("fusion.separators", proto.separators(), v1::SeparatorPolicy_IsValid));
  CHORUS_RETURN_IF_ERROR(
      CheckEnum("fusion.first_token", proto.first_token(), v1::FirstToken_IsValid));
  if (proto.method() != 0) fusion->method = static_cast<FusionMethod>(proto.method());
  if (proto.positions() == v1::POSITION_MODE_SEQUENTIAL) {
    fusion->positions = PositionMode::kSequential;
  }
  if (proto.separators() == v1::SEPARATOR_POLICY_ATTACHED) {
    fusion->separators = SeparatorPolicy::kAttached;
  }
  if (proto.first_token() == v1::FIRST_TOKEN_LAST_SEGMENT) {
    fusion->first_token = FirstToken::kLastSegment;
  }
  CHORUS_RETURN_IF_ERROR(CheckCount("fusion.weights", proto.weights_size(), kMaxPrompts));
  for (int i = 0; i < proto.weights_size(); ++i) {
    CHORUS_RETURN_IF_ERROR(CheckFinite(absl::StrCat("fusion.weights[", i, "]"), proto.weights(i)));
  }
  fusion->weights.assign(proto.weights().begin(), proto.weights().end());
  if (!proto.has_attention_temperature() && !proto.has_attention_scale() &&
      !proto.has_segment_log_bias()) {
    return absl::OkStatus();
  }
  SegmentScaling scaling;
  if (proto.has_attention_temperature()) scaling.temperature = proto.attention_temperature();
  if (proto.has_attention_scale()) scaling.scale = proto.attention_scale();
  if (proto.has_segment_log_bias()) scaling.log_bias = proto.segment_log_bias();
  CHORUS_RETURN_IF_ERROR(CheckFinite("fusion.attention_temperature", scaling.temperature));
  CHORUS_RETURN_IF_ERROR(CheckFinite("fusion.attention_scale", scaling.scale));
  CHORUS_RETURN_IF_ERROR(CheckFinite("fusion.segment_log_bias", scaling.log_bias));
  fusion->scaling = scaling;
  return absl::OkStatus();
}

absl::Status ParseSampling(const v1::Sampling& proto, uint64_t default_seed,
                           SamplingParams* sampling) {
  if (proto.has_temperature()) sampling->temperature = proto.temperature();
  if (proto.has_top_p()) sampling->top_p = proto.top_p();
  if (proto.has_top_k()) sampling->top_k = proto.top_k();
  if (proto.has_min_p()) sampling->min_p = proto.min_p();
  if (proto.has_repetition_penalty()) sampling->repetition_penalty = proto.repetition_penalty();
  if (proto.has_presence_penalty()) sampling->presence_penalty = proto.presence_penalty();
  if (proto.has_frequency_penalty()) sampling->frequency_penalty = proto.frequency_penalty();
  sampling->seed = proto.has_seed() ? proto.seed() : default_seed;
  const std::pair<const char*, float> floats[] = {
      {"sampling.temperature", sampling->temperature},
      {"sampling.top_p", sampling->top_p},
      {"sampling.min_p", sampling->min_p},
      {"sampling.repetition_penalty", sampling->repetition_penalty},
      {"sampling.presence_penalty", sampling->presence_penalty},
      {"sampling.frequency_penalty", sampling->frequency_penalty}};
  for (const auto& [field, value] : floats) CHORUS_RETURN_IF_ERROR(CheckFinite(field, value));
  CHORUS_RETURN_IF_ERROR(
      CheckCount("sampling.logit_bias", proto.logit_bias().size(), kMaxLogitBiases));
  CHORUS_RETURN_IF_ERROR(
      CheckCount("sampling.allowed_token_ids", proto.allowed_token_ids_size(), kMaxAllowedTokens));
  sampling->logit_bias.insert(proto.logit_bias().begin(), proto.logit_bias().end());
  for (const auto& [id, bias] : sampling->logit_bias) {
    CHORUS_RETURN_IF_ERROR(CheckFinite(absl::StrCat("sampling.logit_bias[", id, "]"), bias));
  }
  sampling->allowed_token_ids.assign(proto.allowed_token_ids().begin(),
                                     proto.allowed_token_ids().end());
  return absl::OkStatus();
}

absl::Status ParseStopping(const v1::Stopping& proto, StoppingParams* stopping) {
  if (proto.has_max_new_tokens()) stopping->max_new_tokens = proto.max_new_tokens();
  if (proto.has_min_new_tokens()) stopping->min_new_tokens = proto.min_new_tokens();
  CHORUS_RETURN_IF_ERROR(CheckCount("stopping.stop", proto.stop_size(), kMaxStopStrings));
  CHORUS_RETURN_IF_ERROR(
      CheckCount("stopping.stop_token_ids", proto.stop_token_ids_size(), kMaxStopTokenIds));
  stopping->stop.assign(proto.stop().begin(), proto.stop().end());
  stopping->stop_token_ids.assign(proto.stop_token_ids().begin(), proto.stop_token_ids().end());
  stopping->ignore_eos = proto.ignore_eos();
  stopping->include_stop = proto.include_stop();
  return absl::OkStatus();
}

// The prompts of a TextPrompt in the caller's order, each with its field path.
struct NamedText {
  std::string field;
  const std::string* text;
};

absl::StatusOr<std::vector<NamedText>> ListPrompts(const v1::TextPrompt& text) {
  const bool has_list = text.prompts_size() > 0;
  if (has_list && !text.question().empty()) {
    return FieldError("prompt.text.prompts", absl::StrCat(text.prompts_size(), " entries"),
                      "must not be given together with question");
  }
  if (has_list && text.paraphrases_size() > 0) {
    return FieldError("prompt.text.prompts", absl::StrCat(text.prompts_size(), " entries"),
                      "must not be given together with paraphrases");
  }
  if (!has_list && text.question().empty()) {
    return FieldError("prompt.text.question", "\"\"", "must not be empty unless prompts are given");
  }
  const int count = has_list ? text.prompts_size() : 1 + text.paraphrases_size();
  if (count > kMaxPrompts) {
    return FieldError(has_list ? "prompt.text.prompts" : "prompt.text.paraphrases",
                      absl::StrCat(count, " prompts"),
                      absl::StrCat("must be 1..", kMaxPrompts, " prompts, the question included"));
  }
  std::vector<NamedText> prompts;
  if (!has_list) prompts.push_back({"prompt.text.question", &text.question()});
  const auto& list = has_list ? text.prompts() : text.paraphrases();
  for (int i = 0; i < list.size(); ++i) {
    const char* const name = has_list ? "prompts" : "paraphrases";
    prompts.push_back({absl::StrCat("prompt.text.", name, "[", i, "]"), &list[i]});
    if (list[i].empty()) return FieldError(prompts.back().field, "\"\"", "must not be empty");
  }
  return prompts;
}

int64_t PromptTextBytes(const v1::TextPrompt& text) {
  int64_t bytes = text.question().size() + text.prefix().size() + text.suffix().size() +
                  text.separator().size() + text.system().size();
  for (const std::string& paraphrase : text.paraphrases()) bytes += paraphrase.size();
  for (const std::string& prompt : text.prompts()) bytes += prompt.size();
  return bytes;
}

}  // namespace

RequestParser::RequestParser(const Tokenizer* tokenizer, TextConfig text_config, ParseLimits limits)
    : tokenizer_(tokenizer), text_config_(std::move(text_config)), limits_(limits) {}

size_t RequestParser::TextBytes(const v1::GenerateRequest& proto) {
  return static_cast<size_t>(PromptTextBytes(proto.prompt().text()));
}

size_t RequestParser::TextBytes(const v1::ScoreRequest& proto) {
  int64_t bytes = PromptTextBytes(proto.prompt().text());
  for (const v1::Continuation& continuation : proto.continuations()) {
    bytes += continuation.text().size();
  }
  return static_cast<size_t>(bytes);
}

absl::StatusOr<Request> RequestParser::Parse(const v1::GenerateRequest& proto,
                                             RequestDefaults defaults) const {
  Request request;
  CHORUS_RETURN_IF_ERROR(ParseId(proto.request_id(), &defaults, &request));
  CHORUS_RETURN_IF_ERROR(ParsePriority(proto.priority(), &request));
  CHORUS_RETURN_IF_ERROR(ParseFusion(proto.fusion(), &request.fusion));
  CHORUS_RETURN_IF_ERROR(ParseSampling(proto.sampling(), defaults.seed, &request.sampling));
  CHORUS_RETURN_IF_ERROR(ParseStopping(proto.stopping(), &request.stopping));
  request.response = {.top_logprobs = proto.response().top_logprobs(),
                      .attribution = proto.response().attribution(),
                      .prompt_disagreement = proto.response().prompt_disagreement()};
  CHORUS_RETURN_IF_ERROR(ParsePrompt(proto.prompt(), &request));
  return request;
}

absl::StatusOr<Request> RequestParser::Parse(const v1::ScoreRequest& proto,
                                             RequestDefaults defaults) const {
  Request request;
  CHORUS_RETURN_IF_ERROR(ParseId(proto.request_id(), &defaults, &request));
  CHORUS_RETURN_IF_ERROR(ParsePriority(proto.priority(), &request));
  CHORUS_RETURN_IF_ERROR(ParseFusion(proto.fusion(), &request.fusion));
  CHORUS_RETURN_IF_ERROR(ParsePrompt(proto.prompt(), &request));
  ScoreParams& score = request.score.emplace();
  if (proto.has_prompt_logprobs()) score.prompt_logprobs = proto.prompt_logprobs();
  CHORUS_RETURN_IF_ERROR(ParseContinuations(proto, &score));
  return request;
}

absl::Status RequestParser::ParseContinuations(const v1::ScoreRequest& proto,
                                               ScoreParams* score) const {
  const int count = proto.continuations_size();
  if (count < 1 || count > kMaxContinuations) {
    return FieldError("continuations", absl::StrCat(count, " continuations"),
                      absl::StrCat("must be 1..", kMaxContinuations));
  }
  int64_t bytes = 0;
  for (int i = 0; i < count; ++i) {
    const v1::Continuation& continuation = proto.continuations(i);
    const std::string field = absl::StrCat("continuations[", i, "]");
    std::vector<int32_t>& token_ids = score->continuations.emplace_back();
    if (continuation.form_case() == v1::Continuation::FORM_NOT_SET) {
      return FieldError(field, "nothing", "must hold text or tokens");
    }
    bytes += continuation.text().size();
    CHORUS_RETURN_IF_ERROR(CheckTextBytes(field, bytes));
    if (continuation.form_case() == v1::Continuation::kText) {
      token_ids = tokenizer_->Encode(continuation.text(), SpecialTokens::kPlainText);
    } else {
      const auto& ids = continuation.tokens().token_ids();
      CHORUS_RETURN_IF_ERROR(
          CheckTokenIds(absl::StrCat(field, ".tokens"), ids, limits_.vocab_size));
      token_ids.assign(ids.begin(), ids.end());
    }
    if (!token_ids.empty()) continue;
    return FieldError(field, "0 tokens", "must hold at least one token of the model's vocabulary");
  }
  return absl::OkStatus();
}

absl::Status RequestParser::CheckTextBytes(const std::string& field, int64_t bytes) const {
  const int64_t limit = limits_.max_request_tokens * kMaxTextBytesPerToken;
  if (bytes <= limit) return absl::OkStatus();
  return FieldError(field, absl::StrCat(bytes, " bytes"),
                    absl::StrCat("must have at most ", limit, " bytes of text in all (",
                                 kMaxTextBytesPerToken, " for each of the ",
                                 limits_.max_request_tokens, " tokens of a request)"));
}

absl::Status RequestParser::ParsePrompt(const v1::Prompt& prompt, Request* request) const {
  switch (prompt.form_case()) {
    case v1::Prompt::kText:
      return ParseText(prompt.text(), request);
    case v1::Prompt::kTokens:
      return ParseTokens(prompt.tokens(), request);
    case v1::Prompt::FORM_NOT_SET:
      return FieldError("prompt", "nothing", "must hold text or tokens");
  }
  return absl::OkStatus();
}

ExplainParams ParseExplain(const v1::ExplainRequest& proto, const ModelInfo& info) {
  const auto ids = [](const google::protobuf::RepeatedField<int32_t>& list, int32_t default_end) {
    std::vector<int32_t> indexes(list.begin(), list.end());
    if (!indexes.empty()) return indexes;
    indexes.resize(default_end);
    std::iota(indexes.begin(), indexes.end(), 0);
    return indexes;
  };
  return {.layers = ids(proto.layers(), info.num_layers),
          .heads = ids(proto.heads(), info.num_heads),
          .steps = ids(proto.steps(), 1)};
}

absl::Status RequestParser::ParseText(const v1::TextPrompt& text, Request* request) const {
  CHORUS_RETURN_IF_ERROR(CheckEnum("prompt.text.template", text.template_(), v1::Template_IsValid));
  CHORUS_ASSIGN_OR_RETURN(const std::vector<NamedText> prompts, ListPrompts(text));
  CHORUS_RETURN_IF_ERROR(CheckTextBytes("prompt.text", PromptTextBytes(text)));
  for (const NamedText& prompt : prompts) {
    request->prompts.push_back(tokenizer_->Encode(*prompt.text, SpecialTokens::kPlainText));
    // Some vocabularies lack byte symbols, so a text can lose all its characters.
    if (request->prompts.back().empty()) {
      return FieldError(prompt.field, absl::StrCat(prompt.text->size(), " bytes"),
                        "must hold at least one token of the model's vocabulary");
    }
  }
  EncodeFrame(text, request);
  return absl::OkStatus();
}

void RequestParser::EncodeFrame(const v1::TextPrompt& text, Request* request) const {
  FrameText frame = {.separator = text.separator()};
  if (text.template_() != v1::TEMPLATE_UNSPECIFIED) {
    frame.kind = static_cast<TemplateKind>(text.template_());
  }
  if (text.has_system()) frame.system = text.system();
  if (text.has_prefix()) frame.prefix = text.prefix();
  if (text.has_suffix()) frame.suffix = text.suffix();
  FrameTokens tokens = chorus::EncodeFrame(frame, text_config_, *tokenizer_);
  request->prefix = std::move(tokens.prefix);
  request->suffix = std::move(tokens.suffix);
  request->separator = std::move(tokens.separator);
}

absl::Status RequestParser::ParseTokens(const v1::TokenPrompt& tokens, Request* request) const {
  if (tokens.segments_size() < 1 || tokens.segments_size() > kMaxPrompts) {
    return FieldError("prompt.tokens.segments", absl::StrCat(tokens.segments_size(), " segments"),
                      absl::StrCat("must be 1..", kMaxPrompts));
  }
  int64_t total = tokens.prefix().token_ids_size() + tokens.suffix().token_ids_size();
  for (const auto& segment : tokens.segments()) total += segment.token_ids_size();
  total += int64_t{tokens.separator().token_ids_size()} * (tokens.segments_size() - 1);
  if (total > limits_.max_request_tokens) {
    return FieldError("prompt.tokens", absl::StrCat(total, " tokens"),
                      absl::StrCat("must be at most ", limits_.max_request_tokens));
  }
  const auto take = [this](const std::string& field, const v1::TokenSegment& segment,
                           std::vector<int32_t>* ids) {
    ids->assign(segment.token_ids().begin(), segment.token_ids().end());
    return CheckTokenIds(field, segment.token_ids(), limits_.vocab_size);
  };
  CHORUS_RETURN_IF_ERROR(take("prompt.tokens.prefix", tokens.prefix(), &request->prefix));
  CHORUS_RETURN_IF_ERROR(take("prompt.tokens.suffix", tokens.suffix(), &request->suffix));
  CHORUS_RETURN_IF_ERROR(take("prompt.tokens.separator", tokens.separator(), &request->separator));
  for (int i = 0; i < tokens.segments_size(); ++i) {
    const std::string field = absl::StrCat("prompt.tokens.segments[", i, "]");
    if (tokens.segments(i).token_ids().empty()) {
      return FieldError(field, "0 tokens", "must not be empty");
    }
    request->prompts.emplace_back();
    CHORUS_RETURN_IF_ERROR(take(field, tokens.segments(i), &request->prompts.back()));
  }
  return absl::OkStatus();
}

}  // namespace chorus
