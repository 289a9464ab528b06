#pragma once

#include "chorus/v1/inference.pb.h"

#include "core/text/tokenizer.h"
#include "server/event_buffer.h"
#include "server/stream_end.h"

namespace chorus {

// The engine's event as a message of the public contract. `response` may hold an earlier event,
// whose memory is used again. `tokenizer` spells the ids of top_logprobs. Pure.
void FillResponse(StreamEvent event, const RequestRecord& request, const Tokenizer& tokenizer,
                  v1::GenerateResponse* response);

// Parts of it that other answers hold too.
void FillPromptInfo(const PromptSummary& summary, const RequestRecord& request,
                    v1::PromptInfo* info);
void FillFinish(FinishSummary summary, v1::FinishInfo* finish);
void FillUsage(const FinishSummary& summary, v1::Usage* usage);
void FillTiming(const FinishSummary& summary, v1::Timing* timing);

}  // namespace chorus
