#pragma once

#include <vector>

#include "absl/status/status.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"

namespace chorus {

// An Explain request that has run to its end.
struct Explained {
  Request request;  // with ExplainParams
  PromptSummary start;
  FinishSummary finish;
  std::vector<AttentionStep> steps;  // ascending
};

// What is known of it as a message of the public contract: the layout, planned again as the engine
// planned it, the mask of the whole sequence, and the attention by units that have keys. Pure;
// takes some 10 ms for the largest requests. An error only where PlanFusion gives one.
absl::Status FillExplainResponse(Explained explained, const Tokenizer& tokenizer,
                                 v1::ExplainResponse* response);

}  // namespace chorus
