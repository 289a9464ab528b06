#include "client/score_options.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr const char* kIntro =
    "Says how likely each of several continuations is as the answer to a question in several wordings.";

constexpr const char* kEpilogue =
    R"(A continuation is appended as it is to the encoded prompt: mind its leading space where the prompt
ends with a word. \n in it is a backslash and an n; --continuation_tokens takes any token. The
log-likelihood is the sum of the tokens' logarithms (natural), each given the prompt and the tokens
before it, under the distribution that `chorus ask` would choose the token from: what it answers
greedily is marked greedy. per_prompt and vote fuse nothing: there it is the logarithm of the mean
over prompts of the continuation's probability, and greedy means that every prompt would say it, or
more than half of them. The columns [0], [1], ... are the continuation's log-likelihoods under each
prompt alone, the question first.

Examples:
  chorus score "What is the capital of France?" --paraphrase="Name the capital city of France." \
      --continuation="Paris" --continuation="Lyon"
  chorus score "The capital of France is" --paraphrase="France's capital city is" --prefix= \
      --suffix= --continuation=" Paris" --continuation=" Lyon" --method=all
  chorus score "Who wrote Faust?" --continuation="Goethe" --per_token --json | jq .scores[0].logprob

--json prints one object on one line for each method, always with all of these keys:
  method       the method's name, as in --method
  scores       one a continuation, in the order of the flags: text; token_ids; logprob; mean_logprob
               (logprob / tokens); is_greedy; token_logprobs; prompt_logprobs (one a prompt; empty
               with --no_prompt_logprobs); greedy_token_ids (the likeliest in each place; empty for
               per_prompt and vote); token_texts (null without --per_token). What is not a number
               or infinite is null
  prompt_info  as `chorus ask --json`
  usage        prompt_tokens, cached_tokens, scored_tokens, model_steps
  timing       queue_seconds, first_token_seconds (to the first score), total_seconds

Exit code: 0 done, 1 failure, 2 wrong usage.)";

FlagSetter AppendText(std::vector<v1::Continuation>* continuations) {
  return [continuations](const std::string& value) -> absl::Status {
    if (value.empty()) return absl::InvalidArgumentError("is empty: give one token at least");
    continuations->emplace_back().set_text(value);
    return absl::OkStatus();
  };
}

FlagSetter AppendIds(std::vector<v1::Continuation>* continuations) {
  return [continuations](const std::string& value) -> absl::Status {
    CHORUS_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseTokenIds(value));
    continuations->emplace_back().mutable_tokens()->mutable_token_ids()->Assign(ids.begin(),
                                                                                ids.end());
    return absl::OkStatus();
  };
}

}  // namespace

FlagParser MakeScoreParser(ScoreOptions& options) {
  FlagParser parser("chorus score",
                    "\"QUESTION\" [--paraphrase=TEXT ...] --continuation=TEXT ... [flags]", kIntro);
  parser.AddSection("Continuations:");
  parser.AddFlag("continuation", "TEXT", "an answer to score; repeat it for more, 256 at most",
                 AppendText(&options.continuations));
  parser.AddFlag("continuation_tokens", "ID,ID,...", "one as token ids, in its place among them",
                 AppendIds(&options.continuations));
  parser.AddSwitch("per_token", "the log-probability of every token too", &options.per_token);
  parser.AddSwitch("no_prompt_logprobs",
                   "not under each prompt alone: spares attention reading every prompt on its own",
                   &options.no_prompt_logprobs);
  AddParaphraseFlag(parser, options.ask);
  AddRequestFlags(parser, options.ask, RequestFlags::kScore);
  options.ask.common.AddTo(parser);
  parser.AddEpilogue(kEpilogue);
  return parser;
}

v1::ScoreRequest MakeScoreRequest(const ScoreOptions& options, v1::FusionMethod method) {
  v1::GenerateRequest like = MakeGenerateRequest(options.ask, method);
  v1::ScoreRequest request;
  *request.mutable_prompt() = std::move(*like.mutable_prompt());
  *request.mutable_fusion() = std::move(*like.mutable_fusion());
  request.set_request_id(like.request_id());
  request.set_priority(like.priority());
  request.mutable_continuations()->Assign(options.continuations.begin(),
                                          options.continuations.end());
  if (options.no_prompt_logprobs) request.set_prompt_logprobs(false);
  return request;
}

}  // namespace chorus
