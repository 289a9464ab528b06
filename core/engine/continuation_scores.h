#pragma once

#include <vector>

#include "absl/types/span.h"

#include "core/engine/fusion_strategy.h"
#include "core/engine/generation.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"

namespace chorus {

// The scores of a request's continuations, in its order, from all of its generations: of the fused
// row, or for PER_PROMPT and VOTE of the mixture of the prompts' distributions, each as likely as the
// others: log of the mean over prompts of what each gives to the continuation. Its tokens' scores are
// the differences along the continuation. The mixture does not depend on the order of the prompts.
// REQUIRES: the request scores, and the generations are finished.
std::vector<ContinuationScore> CombineScores(const Request& request, const FusionPlan& plan,
                                             absl::Span<const Generation* const> generations);

}  // namespace chorus
