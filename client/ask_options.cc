#include "client/ask_options.h"

#include "absl/strings/str_split.h"

namespace chorus {
namespace {

constexpr const char* kPromptSection = "Prompt:";

constexpr const char* kIntro =
    "Asks a question in several wordings and prints the one fused answer as it comes.";

constexpr const char* kEpilogue =
    R"(In --prefix, --suffix, --separator, --system and --stop, \n is a newline, \t a tab and \\ a
backslash; question and paraphrases are taken as they are. --prefix= (nothing behind) is an empty
prefix.

Examples:
  chorus ask "What is the capital of France?" \
      --paraphrase="Name the capital city of France." \
      --paraphrase="Which city is France's capital?"
  chorus ask "Who wrote Faust?" --paraphrase="Name the author of Faust." --method=all
  chorus ask "Who wrote Faust?" --paraphrase="Name the author of Faust." --preset=prototype
  chorus ask "Q: Capital of Peru?" --paraphrase="Q: Name Peru's capital." \
      --prefix="Q: Capital of Norway?\nA: Oslo.\n\n" --suffix="\nA:" --stop="\n"
  chorus ask "Tell me a joke." --temperature=0.8 --top_p=0.95 --seed=7 --json | jq -r .text

--json prints one object on one line for each method, always with all of these keys:
  method         the method's name, as in --method
  text           the whole answer (vote: the winner's; per_prompt: the question's)
  token_ids      of that answer
  finish_reason  eos, length, stop_string or stop_token
  stop           the stop string or the stop token's spelling, else ""
  usage          prompt_tokens, cached_tokens, generated_tokens, model_steps
  timing         queue_seconds, first_token_seconds, total_seconds, each from submission
  prompts        per_prompt, vote: a list of index, text, token_ids, finish_reason, stop,
                 mean_logprob
  tally          vote: a list of answer, count, prompt_indexes; most frequent first
  prompt_info    request_id, seed, segment_tokens, original_length, prompt_tokens,
                 cached_tokens, worker
  tokens         as they came: a list of token_id, logprob, prompt_index; top_logprobs, a list of
                 token_id, text, logprob (empty without --top_logprobs); attribution: prefix, segments
                 (one a prompt), separators, suffix, generated, together 1 (null without
                 --attribution); disagreement, in bits (null without --disagreement); text (null
                 without either of the two)

Exit code: 0 done, 1 failure, 2 wrong usage.)";

void AddParaphrase(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("paraphrase", "TEXT", "another wording of the question; repeat it for more",
                 Append(&options.paraphrases));
}

void AddFrameFlags(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("template", EnumSyntax<v1::Template>(),
                 "chat template around the prompts; default auto: the model's own; none if "
                 "--prefix or --suffix is given",
                 IntoEnum(&options.prompt_template));
  parser.AddFlag("system", "TEXT", "the template's system text; default: the model's own",
                 IntoUnescaped(&options.system));
  parser.AddFlag("prefix", "TEXT", "text before all prompts, seen by each of them",
                 IntoUnescaped(&options.prefix));
  parser.AddFlag("suffix", "TEXT", "text after all prompts, which sees them all",
                 IntoUnescaped(&options.suffix));
  parser.AddFlag("separator", "TEXT", "text between prompts; default: none; attention only",
                 IntoUnescaped(&options.separator));
}

// "all", or methods separated by commas; repeatable.
FlagSetter AppendMethods(std::vector<v1::FusionMethod>* methods) {
  return [methods](const std::string& value) -> absl::Status {
    if (value == "all") {
      for (const auto& [name, method] : EnumChoices<v1::FusionMethod>()) methods->push_back(method);
      return absl::OkStatus();
    }
    const std::vector<std::string> names = absl::StrSplit(value, ',');
    for (const std::string& name : names) {
      const absl::StatusOr<v1::FusionMethod> method = ParseEnum<v1::FusionMethod>(name);
      if (!method.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(method.status().message(), ", all"));
      }
      methods->push_back(*method);
    }
    return absl::OkStatus();
  };
}

FlagSetter IntoPreset(bool* is_prototype) {
  return [is_prototype](const std::string& value) -> absl::Status {
    if (value != "prototype") return absl::InvalidArgumentError("is not one of prototype");
    *is_prototype = true;
    return absl::OkStatus();
  };
}

void AddLayoutFlags(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("preset", "prototype",
                 "the founding prototype's settings: --prefix= --suffix= "
                 "--separator=\"\\n\\n[SEP]\\n\\n\" --separators=isolated --positions=sequential "
                 "--first_token=last_segment; a flag given beside it wins",
                 IntoPreset(&options.is_prototype));
  parser.AddFlag("separators", EnumSyntax<v1::SeparatorPolicy>(),
                 "whether a separator belongs to no prompt or to the one before it; default "
                 "isolated; attention only",
                 IntoEnum(&options.separators));
}

void AddMethodFlag(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("method", absl::StrCat(EnumSyntax<v1::FusionMethod>(), "|all"),
                 "how the prompts become one answer; default attention; several, separated by "
                 "commas or in flags of their own, are taken in turn",
                 AppendMethods(&options.methods));
}

void AddFusionFlags(FlagParser& parser, AskOptions& options, RequestFlags kind) {
  parser.AddSection("Fusion:");
  if (kind != RequestFlags::kExplain) AddMethodFlag(parser, options);
  AddLayoutFlags(parser, options);
  parser.AddFlag("positions", EnumSyntax<v1::PositionMode>(), "default overlapping; attention only",
                 IntoEnum(&options.positions));
  parser.AddFlag("first_token", EnumSyntax<v1::FirstToken>(),
                 "where the first token comes from when there is no suffix; default fuse_first; "
                 "attention only",
                 IntoEnum(&options.first_token));
  parser.AddFlag("weights", "W0,W1,...",
                 "one a prompt, the question first; default equal; logit_mean, prob_mean and "
                 "fuse_first; with several methods: logit_mean and prob_mean",
                 IntoList(&options.weights));
  parser.AddFlag("attention_temperature", "T", "prompts' attention logits / T; default 1",
                 Into(&options.attention_temperature));
  parser.AddFlag("attention_scale", "S", "their log-sum-exp * S; default 1",
                 Into(&options.attention_scale));
  parser.AddFlag("segment_log_bias", "B", "then + B; default 0; -ln(N) makes N equal prompts one",
                 Into(&options.segment_log_bias));
}

void AddSamplingFlags(FlagParser& parser, AskOptions& options) {
  parser.AddSection("Sampling:");
  parser.AddFlag("temperature", "T", "0 or more; default 0: always the likeliest token",
                 Into(&options.temperature));
  parser.AddFlag("top_p", "P", "above 0, at most 1; default 1", Into(&options.top_p));
  parser.AddFlag("top_k", "K", "0 or more; default 0: off", Into(&options.top_k));
  parser.AddFlag("min_p", "P", "0 to 1; default 0", Into(&options.min_p));
  parser.AddFlag("repetition_penalty", "R", "above 0; default 1; prompt and generated tokens",
                 Into(&options.repetition_penalty));
  parser.AddFlag("presence_penalty", "R", "-2 to 2; default 0; generated tokens",
                 Into(&options.presence_penalty));
  parser.AddFlag("frequency_penalty", "R", "-2 to 2; default 0; generated tokens",
                 Into(&options.frequency_penalty));
  parser.AddFlag("seed", "N", "the same seed gives the same answer; default: the server draws one",
                 Into(&options.seed));
  parser.AddFlag("logit_bias", "TOKEN_ID:NUMBER", "added to that token's logit; repeatable",
                 AppendLogitBias(&options.logit_bias));
  parser.AddFlag("allowed_token_ids", "ID,ID,...", "only these tokens may come",
                 IntoList(&options.allowed_token_ids));
}

void AddStoppingFlags(FlagParser& parser, AskOptions& options) {
  parser.AddSection("Stopping and output:");
  parser.AddFlag("max_new_tokens", "N", "1 or more; default 64", Into(&options.max_new_tokens));
  parser.AddFlag("min_new_tokens", "N", "no end before so many; default 0",
                 Into(&options.min_new_tokens));
  parser.AddFlag("stop", "TEXT", "ends the answer where this text comes; repeatable",
                 AppendUnescaped(&options.stop));
  parser.AddFlag("stop_token_ids", "ID,ID,...", "tokens that end the answer",
                 IntoList(&options.stop_token_ids));
  parser.AddSwitch("ignore_eos", "go on past the end-of-sequence token", &options.ignore_eos);
  parser.AddSwitch("include_stop", "the stop text is part of the answer", &options.include_stop);
}

void AddRequestIdFlag(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("request_id", "TEXT", "a name for the server's log; default: the server makes one",
                 Into(&options.request_id));
}

void AddPriorityFlag(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("priority", "N", "-100 to 100; higher runs first while waiting; default 0",
                 Into(&options.priority));
}

void AddOutputFlags(FlagParser& parser, AskOptions& options) {
  parser.AddFlag("top_logprobs", "N", "0 to 20 likeliest alternatives for each token; default 0",
                 Into(&options.top_logprobs));
  parser.AddSwitch("attribution",
                   "for each token, how much of its attention went to each prompt; attention only",
                   &options.attribution);
  parser.AddSwitch("disagreement",
                   "for each token, how far the prompts' own distributions were apart, in bits: 0 "
                   "to log2(prompts); costs attention a row a prompt a token; not per_prompt, vote",
                   &options.disagreement);
}

void FillPrompt(const AskOptions& options, v1::TextPrompt& prompt) {
  prompt.set_question(options.question);
  prompt.mutable_paraphrases()->Assign(options.paraphrases.begin(), options.paraphrases.end());
  if (options.prefix) prompt.set_prefix(*options.prefix);
  if (options.suffix) prompt.set_suffix(*options.suffix);
  if (options.separator) prompt.set_separator(*options.separator);
  if (options.system) prompt.set_system(*options.system);
  if (options.prompt_template) prompt.set_template_(*options.prompt_template);
}

void FillFusion(const AskOptions& options, v1::FusionMethod method, v1::Fusion& fusion) {
  fusion.set_method(method);
  if (options.positions) fusion.set_positions(*options.positions);
  if (options.separators) fusion.set_separators(*options.separators);
  if (options.first_token) fusion.set_first_token(*options.first_token);
  const bool takes_weights =
      method == v1::FUSION_METHOD_LOGIT_MEAN || method == v1::FUSION_METHOD_PROB_MEAN;
  if (takes_weights || options.methods.size() <= 1) {
    fusion.mutable_weights()->Assign(options.weights.begin(), options.weights.end());
  }
  if (options.attention_temperature) {
    fusion.set_attention_temperature(*options.attention_temperature);
  }
  if (options.attention_scale) fusion.set_attention_scale(*options.attention_scale);
  if (options.segment_log_bias) fusion.set_segment_log_bias(*options.segment_log_bias);
}

void FillSampling(const AskOptions& options, v1::Sampling& sampling) {
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.top_k) sampling.set_top_k(*options.top_k);
  if (options.min_p) sampling.set_min_p(*options.min_p);
  if (options.repetition_penalty) sampling.set_repetition_penalty(*options.repetition_penalty);
  if (options.presence_penalty) sampling.set_presence_penalty(*options.presence_penalty);
  if (options.frequency_penalty) sampling.set_frequency_penalty(*options.frequency_penalty);
  if (options.seed) sampling.set_seed(*options.seed);
  for (const auto& [token_id, bias] : options.logit_bias) {
    (*sampling.mutable_logit_bias())[token_id] = bias;
  }
  sampling.mutable_allowed_token_ids()->Assign(options.allowed_token_ids.begin(),
                                               options.allowed_token_ids.end());
}

void FillStopping(const AskOptions& options, v1::Stopping& stopping) {
  if (options.max_new_tokens) stopping.set_max_new_tokens(*options.max_new_tokens);
  if (options.min_new_tokens) stopping.set_min_new_tokens(*options.min_new_tokens);
  stopping.mutable_stop()->Assign(options.stop.begin(), options.stop.end());
  stopping.mutable_stop_token_ids()->Assign(options.stop_token_ids.begin(),
                                            options.stop_token_ids.end());
  stopping.set_ignore_eos(options.ignore_eos);
  stopping.set_include_stop(options.include_stop);
}

void FillResponseOptions(const AskOptions& options, v1::FusionMethod method,
                         v1::GenerateRequest& request) {
  if (options.top_logprobs) request.mutable_response()->set_top_logprobs(*options.top_logprobs);
  const bool is_alone = options.methods.size() <= 1;
  if (options.attribution && (is_alone || method == v1::FUSION_METHOD_ATTENTION)) {
    request.mutable_response()->set_attribution(true);
  }
  const bool is_one_answer =
      method != v1::FUSION_METHOD_PER_PROMPT && method != v1::FUSION_METHOD_VOTE;
  if (options.disagreement && (is_alone || is_one_answer)) {
    request.mutable_response()->set_prompt_disagreement(true);
  }
}

}  // namespace

void AddLayoutRequestFlags(FlagParser& parser, AskOptions& options) {
  AddParaphrase(parser, options);
  AddFrameFlags(parser, options);
  AddLayoutFlags(parser, options);
}

void AddRequestFlags(FlagParser& parser, AskOptions& options, RequestFlags kind) {
  parser.AddSection(kPromptSection);
  AddFrameFlags(parser, options);
  AddFusionFlags(parser, options, kind);
  if (kind == RequestFlags::kScore) {
    parser.AddSection("Request:");
  } else {
    AddSamplingFlags(parser, options);
    AddStoppingFlags(parser, options);
  }
  AddRequestIdFlag(parser, options);
  if (kind == RequestFlags::kGenerate) AddOutputFlags(parser, options);
  if (kind != RequestFlags::kExplain) AddPriorityFlag(parser, options);
}

void AddParaphraseFlag(FlagParser& parser, AskOptions& options) {
  parser.AddSection(kPromptSection);
  AddParaphrase(parser, options);
}

FlagParser MakeAskParser(AskOptions& options) {
  FlagParser parser("chorus ask", "\"QUESTION\" [--paraphrase=TEXT ...] [flags]", kIntro);
  AddParaphraseFlag(parser, options);
  AddRequestFlags(parser, options, RequestFlags::kGenerate);
  options.common.AddTo(parser);
  parser.AddEpilogue(kEpilogue);
  return parser;
}

void ApplyPreset(AskOptions& options) {
  if (options.methods.empty()) options.methods.push_back(v1::FUSION_METHOD_ATTENTION);
  if (!options.is_prototype) return;
  const bool names_template =
      options.prompt_template && *options.prompt_template != v1::TEMPLATE_NONE;
  if (!names_template) {
    if (!options.prefix) options.prefix = "";
    if (!options.suffix) options.suffix = "";
  }
  if (!options.separator) options.separator = "\n\n[SEP]\n\n";
  if (!options.separators) options.separators = v1::SEPARATOR_POLICY_ISOLATED;
  if (!options.positions) options.positions = v1::POSITION_MODE_SEQUENTIAL;
  if (!options.first_token) options.first_token = v1::FIRST_TOKEN_LAST_SEGMENT;
}

v1::GenerateRequest MakeGenerateRequest(const AskOptions& options, v1::FusionMethod method) {
  v1::GenerateRequest request;
  FillPrompt(options, *request.mutable_prompt()->mutable_text());
  FillFusion(options, method, *request.mutable_fusion());
  FillSampling(options, *request.mutable_sampling());
  FillStopping(options, *request.mutable_stopping());
  FillResponseOptions(options, method, request);
  if (options.request_id) request.set_request_id(*options.request_id);
  if (options.priority) request.set_priority(*options.priority);
  return request;
}

}  // namespace chorus
