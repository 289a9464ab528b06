#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "chorus/v1/inference.pb.h"

#include "client/common_flags.h"
#include "client/flag_parser.h"

namespace chorus {

// What `chorus ask` was told. An empty optional or list was not given: the server's default holds.
struct AskOptions {
  std::string question;
  std::vector<std::string> paraphrases;
  std::optional<std::string> prefix, suffix, separator, system;
  std::optional<v1::Template> prompt_template;

  std::vector<v1::FusionMethod> methods;  // empty: attention
  std::optional<v1::PositionMode> positions;
  std::optional<v1::SeparatorPolicy> separators;
  std::optional<v1::FirstToken> first_token;
  std::vector<float> weights;
  std::optional<float> attention_temperature, attention_scale, segment_log_bias;

  std::optional<float> temperature, top_p, min_p;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;

  std::optional<int32_t> max_new_tokens, min_new_tokens;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;

  std::optional<int32_t> top_logprobs;
  bool attribution = false;
  bool disagreement = false;
  std::optional<std::string> request_id;
  std::optional<int32_t> priority;
  bool is_prototype = false;  // --preset=prototype

  CommonFlags common;
};

// Which commands a set of flags is for.
enum class RequestFlags {
  kGenerate,  // ask, load
  kExplain,   // without those that mean nothing there: the method, what the answer's tokens bring
  kScore,     // without those of an answer: sampling, stopping
};

// Adds the flags of a prompt that decide its tokens and its segments: paraphrases, template, prefix,
// suffix, separator, --preset. `chorus mask` takes them.
void AddLayoutRequestFlags(FlagParser& parser, AskOptions& options);

// Adds the flags that say how to ask, whatever is asked: template, fusion, sampling, stopping.
void AddRequestFlags(FlagParser& parser, AskOptions& options, RequestFlags kind);
void AddParaphraseFlag(FlagParser& parser, AskOptions& options);

// The parser of `chorus ask`; it writes into `options`, which must outlive it.
FlagParser MakeAskParser(AskOptions& options);

// Fills what --preset leaves to it and was not given by a flag of its own; then the methods. Call
// once, after parsing. The prototype: no prefix, no suffix, separator "\n\n[SEP]\n\n" owned by no
// segment, sequential positions, first token from the last segment. A template that is named
// wins over the preset's empty prefix and suffix.
void ApplyPreset(AskOptions& options);

// The request for one method. Where several methods are asked in one go, the weights go to those
// alone that take them whatever the prompt (LOGIT_MEAN, PROB_MEAN), and attribution and disagreement
// to those that have them: the server refuses them for others.
v1::GenerateRequest MakeGenerateRequest(const AskOptions& options, v1::FusionMethod method);

}  // namespace chorus
