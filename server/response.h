#pragma once

#include <cstdint>
#include <string>

#include "chorus/v1/inference.pb.h"

#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"

namespace chorus {

// The engine's events as messages of the public contract. Pure.
v1::GenerateResponse ToPromptInfo(const PromptSummary& summary, const std::string& request_id,
                                  uint64_t seed);
// `tokenizer` spells the ids of top_logprobs.
v1::GenerateResponse ToTokenChunk(TokenEvent event, const Tokenizer& tokenizer);
v1::GenerateResponse ToFinishInfo(FinishSummary summary);

}  // namespace chorus
