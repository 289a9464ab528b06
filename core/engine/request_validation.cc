#include "core/engine/request_validation.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/engine/attention_units.h"

namespace chorus {
namespace {

// The error for `field` unless `valid`. NaN fails every comparison, so ranges refuse it.
template <typename Value>
absl::Status Expect(bool valid, std::string_view field, const Value& value,
                    std::string_view limit) {
  return valid ? absl::OkStatus() : FieldError(field, absl::StrCat(value), limit);
}

absl::Status CheckTokenIds(absl::string_view field, const std::vector<int32_t>& token_ids,
                           const ModelInfo& info) {
  for (size_t i = 0; i < token_ids.size(); ++i) {
    if (token_ids[i] >= 0 && token_ids[i] < info.vocab_size) continue;
    return FieldError(absl::StrCat(field, "[", i, "]"), absl::StrCat(token_ids[i]),
                      absl::StrCat("must be a token id in [0, ", info.vocab_size, ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const Request& request, const ModelInfo& info) {
  const size_t num_prompts = request.prompts.size();
  CHORUS_RETURN_IF_ERROR(Expect(num_prompts >= 1 && num_prompts <= kMaxPrompts,
                                "prompt.tokens.segments", absl::StrCat(num_prompts, " prompts"),
                                absl::StrCat("must be 1 to ", kMaxPrompts, " prompts")));
  for (size_t i = 0; i < num_prompts; ++i) {
    const std::string field = absl::StrCat("prompt.tokens.segments[", i, "]");
    CHORUS_RETURN_IF_ERROR(
        Expect(!request.prompts[i].empty(), field, "0 tokens", "must not be empty"));
    CHORUS_RETURN_IF_ERROR(
        CheckTokenIds(absl::StrCat(field, ".token_ids"), request.prompts[i], info));
  }
  CHORUS_RETURN_IF_ERROR(CheckTokenIds("prompt.tokens.prefix.token_ids", request.prefix, info));
  CHORUS_RETURN_IF_ERROR(CheckTokenIds("prompt.tokens.suffix.token_ids", request.suffix, info));
  return CheckTokenIds("prompt.tokens.separator.token_ids", request.separator, info);
}

absl::Status CheckWeights(const Request& request) {
  const std::vector<float>& weights = request.fusion.weights;
  if (weights.empty()) return absl::OkStatus();
  const std::string count = absl::StrCat(weights.size(), " weights");
  CHORUS_RETURN_IF_ERROR(Expect(TakesWeights(request), "fusion.weights", count,
                                "only LOGIT_MEAN, PROB_MEAN and a first token by FUSE_FIRST "
                                "(ATTENTION without suffix) take weights"));
  CHORUS_RETURN_IF_ERROR(
      Expect(weights.size() == request.prompts.size(), "fusion.weights", count,
             absl::StrCat("must be one a prompt, here ", request.prompts.size())));
  double sum = 0.0;
  for (size_t i = 0; i < weights.size(); ++i) {
    CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(weights[i]) && weights[i] >= 0,
                                  absl::StrCat("fusion.weights[", i, "]"), weights[i],
                                  "must be finite and >= 0"));
    sum += weights[i];
  }
  return Expect(sum > 0, "fusion.weights", sum, "must have a sum above 0");
}

absl::Status CheckFusion(const Request& request) {
  const FusionParams& fusion = request.fusion;
  const int method = static_cast<int>(fusion.method);
  CHORUS_RETURN_IF_ERROR(Expect(method >= static_cast<int>(FusionMethod::kAttention) &&
                                    method <= static_cast<int>(FusionMethod::kVote),
                                "fusion.method", method, "must be a known method"));
  if (fusion.scaling.has_value()) {
    const SegmentScaling& scaling = *fusion.scaling;
    constexpr std::string_view kPositive = "must be finite and > 0";
    CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(scaling.temperature) && scaling.temperature > 0,
                                  "fusion.attention_temperature", scaling.temperature, kPositive));
    CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(scaling.scale) && scaling.scale > 0,
                                  "fusion.attention_scale", scaling.scale, kPositive));
    CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(scaling.log_bias), "fusion.segment_log_bias",
                                  scaling.log_bias, "must be finite"));
  }
  return CheckWeights(request);
}

absl::Status CheckSamplingRanges(const SamplingParams& sampling) {
  CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(sampling.temperature) && sampling.temperature >= 0,
                                "sampling.temperature", sampling.temperature,
                                "must be finite and >= 0"));
  CHORUS_RETURN_IF_ERROR(Expect(sampling.top_p > 0 && sampling.top_p <= 1, "sampling.top_p",
                                sampling.top_p, "must be in (0, 1]"));
  CHORUS_RETURN_IF_ERROR(
      Expect(sampling.top_k >= 0, "sampling.top_k", sampling.top_k, "must be >= 0"));
  CHORUS_RETURN_IF_ERROR(Expect(sampling.min_p >= 0 && sampling.min_p <= 1, "sampling.min_p",
                                sampling.min_p, "must be in [0, 1]"));
  const float repetition = sampling.repetition_penalty;
  CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(repetition) && repetition > 0,
                                "sampling.repetition_penalty", repetition,
                                "must be finite and > 0"));
  const float presence = sampling.presence_penalty;
  CHORUS_RETURN_IF_ERROR(Expect(presence >= -2 && presence <= 2, "sampling.presence_penalty",
                                presence, "must be in [-2, 2]"));
  const float frequency = sampling.frequency_penalty;
  return Expect(frequency >= -2 && frequency <= 2, "sampling.frequency_penalty", frequency,
                "must be in [-2, 2]");
}

absl::Status CheckSampling(const SamplingParams& sampling, const ModelInfo& info) {
  CHORUS_RETURN_IF_ERROR(CheckSamplingRanges(sampling));
  for (const auto& [token_id, bias] : sampling.logit_bias) {
    CHORUS_RETURN_IF_ERROR(
        Expect(token_id >= 0 && token_id < info.vocab_size, "sampling.logit_bias", token_id,
               absl::StrCat("must be for token ids in [0, ", info.vocab_size, ")")));
    CHORUS_RETURN_IF_ERROR(Expect(std::isfinite(bias),
                                  absl::StrCat("sampling.logit_bias[", token_id, "]"), bias,
                                  "must be finite"));
  }
  return CheckTokenIds("sampling.allowed_token_ids", sampling.allowed_token_ids, info);
}

absl::Status CheckStopStrings(const std::vector<std::string>& stop) {
  CHORUS_RETURN_IF_ERROR(Expect(stop.size() <= kMaxStopStrings, "stopping.stop",
                                absl::StrCat(stop.size(), " strings"),
                                absl::StrCat("must be at most ", kMaxStopStrings, " strings")));
  for (size_t i = 0; i < stop.size(); ++i) {
    CHORUS_RETURN_IF_ERROR(Expect(!stop[i].empty() && stop[i].size() <= kMaxStopStringBytes,
                                  absl::StrCat("stopping.stop[", i, "]"),
                                  absl::StrCat(stop[i].size(), " bytes"),
                                  absl::StrCat("must be 1 to ", kMaxStopStringBytes, " bytes")));
  }
  return absl::OkStatus();
}

absl::Status CheckStopping(const StoppingParams& stopping, const ModelInfo& info) {
  CHORUS_RETURN_IF_ERROR(Expect(stopping.max_new_tokens >= 1, "stopping.max_new_tokens",
                                stopping.max_new_tokens, "must be >= 1"));
  CHORUS_RETURN_IF_ERROR(
      Expect(stopping.min_new_tokens >= 0 && stopping.min_new_tokens <= stopping.max_new_tokens,
             "stopping.min_new_tokens", stopping.min_new_tokens,
             absl::StrCat("must be 0 to max_new_tokens, here ", stopping.max_new_tokens)));
  CHORUS_RETURN_IF_ERROR(CheckStopStrings(stopping.stop));
  CHORUS_RETURN_IF_ERROR(Expect(stopping.stop_token_ids.size() <= kMaxStopTokenIds,
                                "stopping.stop_token_ids",
                                absl::StrCat(stopping.stop_token_ids.size(), " ids"),
                                absl::StrCat("must be at most ", kMaxStopTokenIds, " ids")));
  return CheckTokenIds("stopping.stop_token_ids", stopping.stop_token_ids, info);
}

absl::Status CheckResponse(const Request& request) {
  const ResponseParams& response = request.response;
  CHORUS_RETURN_IF_ERROR(
      Expect(response.top_logprobs >= 0 && response.top_logprobs <= kMaxTopLogprobs,
             "response.top_logprobs", response.top_logprobs,
             absl::StrCat("must be 0 to ", kMaxTopLogprobs)));
  const FusionMethod method = request.fusion.method;
  CHORUS_RETURN_IF_ERROR(Expect(!response.attribution || method == FusionMethod::kAttention,
                                "response.attribution", "true",
                                "only ATTENTION attends to several prompts at a time"));
  const bool is_one_answer =
      method != FusionMethod::kPerPrompt && method != FusionMethod::kVote;
  return Expect(!response.prompt_disagreement || is_one_answer, "response.prompt_disagreement",
                "true", "PER_PROMPT and VOTE go on with different tokens for each prompt");
}

// One index at least, ascending, each in [0, limit).
absl::Status CheckIndexes(const std::string& field, const std::vector<int32_t>& indexes,
                          int32_t limit) {
  CHORUS_RETURN_IF_ERROR(Expect(!indexes.empty(), field, "nothing", "must name one at least"));
  for (size_t i = 0; i < indexes.size(); ++i) {
    const std::string name = absl::StrCat(field, "[", i, "]");
    CHORUS_RETURN_IF_ERROR(Expect(indexes[i] >= 0 && indexes[i] < limit, name, indexes[i],
                                  absl::StrCat("must be in [0, ", limit, ")")));
    if (i == 0) continue;
    CHORUS_RETURN_IF_ERROR(Expect(indexes[i] > indexes[i - 1], name, indexes[i],
                                  absl::StrCat("must be above the one before, ", indexes[i - 1])));
  }
  return absl::OkStatus();
}

absl::Status CheckExplain(const Request& request, const ModelInfo& info) {
  if (!request.explain.has_value()) return absl::OkStatus();
  const ExplainParams& explain = *request.explain;
  CHORUS_RETURN_IF_ERROR(Expect(request.fusion.method == FusionMethod::kAttention, "fusion.method",
                                static_cast<int>(request.fusion.method),
                                "must be ATTENTION to be explained"));
  CHORUS_RETURN_IF_ERROR(CheckIndexes("layers", explain.layers, info.num_layers));
  CHORUS_RETURN_IF_ERROR(CheckIndexes("heads", explain.heads, info.num_heads));
  CHORUS_RETURN_IF_ERROR(CheckIndexes("steps", explain.steps, request.stopping.max_new_tokens));
  const auto num_prompts = static_cast<int32_t>(request.prompts.size());
  const bool fuses_first =
      request.suffix.empty() && request.fusion.first_token == FirstToken::kFuseFirst;
  const auto num_layers = static_cast<int64_t>(explain.layers.size());
  const auto num_heads = static_cast<int64_t>(explain.heads.size());
  const int64_t num_units = UnitNumbers(num_prompts).count();
  int64_t num_rows = static_cast<int64_t>(explain.steps.size());
  if (fuses_first && explain.steps.front() == 0) num_rows += num_prompts - 1;
  // Each factor is small: of a model, kMaxPrompts, or a request's tokens, which are checked later.
  const int64_t num_others = num_layers * num_heads * num_units;
  return Expect(num_rows <= kMaxExplainValues / num_others, "layers",
                absl::StrCat(num_layers, " layers x ", num_heads, " heads x ", num_units,
                             " units x ", num_rows, " rows"),
                absl::StrCat("must be at most ", kMaxExplainValues,
                             " values in all: name fewer layers, heads or steps"));
}

absl::Status CheckScore(const Request& request, const ModelInfo& info) {
  if (!request.score.has_value()) return absl::OkStatus();
  constexpr std::string_view kAlone = "must be left at its defaults where continuations are scored";
  CHORUS_RETURN_IF_ERROR(Expect(!request.explain.has_value(), "layers", "explained", kAlone));
  CHORUS_RETURN_IF_ERROR(
      Expect(request.response == ResponseParams(), "response", "something", kAlone));
  SamplingParams sampling = request.sampling;
  sampling.seed = 0;  // nothing is drawn
  CHORUS_RETURN_IF_ERROR(Expect(sampling == SamplingParams(), "sampling", "something", kAlone));
  const auto& continuations = request.score->continuations;
  CHORUS_RETURN_IF_ERROR(Expect(!continuations.empty() && continuations.size() <= kMaxContinuations,
                                "continuations",
                                absl::StrCat(continuations.size(), " continuations"),
                                absl::StrCat("must be 1 to ", kMaxContinuations)));
  for (size_t i = 0; i < continuations.size(); ++i) {
    const std::string field = absl::StrCat("continuations[", i, "]");
    CHORUS_RETURN_IF_ERROR(
        Expect(!continuations[i].empty(), field, "0 tokens", "must have one token at least"));
    CHORUS_RETURN_IF_ERROR(
        CheckTokenIds(absl::StrCat(field, ".tokens.token_ids"), continuations[i], info));
  }
  return absl::OkStatus();
}

// The field that makes a request too large if its prompt alone does not: where `left` tokens are left
// for each sequence beside the prompt.
std::string LengthField(const Request& request, int64_t left) {
  if (!request.score.has_value()) return "stopping.max_new_tokens";
  const auto& continuations = request.score->continuations;
  for (size_t i = 0; i < continuations.size(); ++i) {
    left -= static_cast<int64_t>(continuations[i].size());
    if (left < 0) return absl::StrCat("continuations[", i, "]");
  }
  return absl::StrCat("continuations[", continuations.size() - 1, "]");
}

}  // namespace

absl::Status ValidateRequest(const Request& request, const ModelInfo& info) {
  CHORUS_RETURN_IF_ERROR(CheckPrompt(request, info));
  CHORUS_RETURN_IF_ERROR(CheckFusion(request));
  CHORUS_RETURN_IF_ERROR(CheckSampling(request.sampling, info));
  CHORUS_RETURN_IF_ERROR(CheckStopping(request.stopping, info));
  CHORUS_RETURN_IF_ERROR(CheckResponse(request));
  CHORUS_RETURN_IF_ERROR(CheckExplain(request, info));
  return CheckScore(request, info);
}

absl::Status ValidateSize(const Request& request, const ModelInfo& info,
                          const EngineOptions& options) {
  const RequestSize size = SizeOf(request);
  const bool scores = request.score.has_value();
  const auto check = [&](int64_t needed, int64_t limit, absl::string_view what) {
    if (needed <= limit) return absl::OkStatus();
    const int64_t num_new = size.total_tokens - size.prompt_tokens;
    const int64_t left = (limit - (needed - num_new)) / size.num_sequences;
    const std::string field = size.prompt_tokens >= limit ? "prompt" : LengthField(request, left);
    return FieldError(field,
                      absl::StrCat(size.prompt_tokens, " prompt and ", num_new,
                                   scores ? " continuation" : " generated",
                                   " tokens over all sequences"),
                      absl::StrCat("must be at most ", limit, " tokens together, ", what));
  };
  CHORUS_RETURN_IF_ERROR(check(size.total_tokens, options.max_request_tokens,
                               "the server's --max_request_tokens"));
  const bool moves = size.num_slots > size.total_tokens;
  return check(size.num_slots, info.num_kv_slots,
               moves ? "which is all that the KV cache holds (SEQUENTIAL segments without a prefix "
                       "count twice)"
                     : "which is all that the KV cache holds");
}

absl::Status ValidatePositions(const Request& request, const FusionPlan& plan,
                               const ModelInfo& info) {
  int32_t num_positions = 0;  // largest position + 1
  for (const SequencePlan& sequence : plan.sequences) {
    num_positions = std::max(num_positions, sequence.layout.PositionOf(sequence.layout.length()));
  }
  const int32_t num_new = MaxNewTokens(request);
  const int64_t needed = int64_t{num_positions} - 1 + num_new;
  if (needed <= info.max_positions) return absl::OkStatus();
  std::string field = "stopping.max_new_tokens";
  if (num_positions > info.max_positions) {
    field = "prompt";
  } else if (request.score.has_value()) {
    const auto& continuations = request.score->continuations;
    const auto longest = std::find_if(continuations.begin(), continuations.end(), [&](const auto& c) {
      return static_cast<int32_t>(c.size()) == num_new;
    });
    field = absl::StrCat("continuations[", longest - continuations.begin(), "]");
  }
  return FieldError(field,
                    absl::StrCat("largest position ", num_positions - 1, " + ", num_new,
                                 request.score.has_value() ? " tokens" : " new tokens"),
                    absl::StrCat("must be within the model's context of ", info.max_positions));
}

}  // namespace chorus
