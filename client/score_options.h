#pragma once

#include <vector>

#include "chorus/v1/inference.pb.h"

#include "client/ask_options.h"
#include "client/flag_parser.h"

namespace chorus {

// What `chorus score` was told.
struct ScoreOptions {
  AskOptions ask;
  std::vector<v1::Continuation> continuations;  // of both kinds, in the order of their flags
  bool no_prompt_logprobs = false;
  bool per_token = false;
};

// The parser of `chorus score`; it writes into `options`, which must outlive it.
FlagParser MakeScoreParser(ScoreOptions& options);

// The request for one method, after ApplyPreset; weights as MakeGenerateRequest gives them.
v1::ScoreRequest MakeScoreRequest(const ScoreOptions& options, v1::FusionMethod method);

}  // namespace chorus
