#include "server/names.h"

#include "core/base/check.h"

namespace chorus {

std::string_view MethodName(FusionMethod method) {
  switch (method) {
    case FusionMethod::kAttention:
      return "attention";
    case FusionMethod::kLogitMean:
      return "logit_mean";
    case FusionMethod::kProbMean:
      return "prob_mean";
    case FusionMethod::kProbMax:
      return "prob_max";
    case FusionMethod::kLogitMax:
      return "logit_max";
    case FusionMethod::kPerPrompt:
      return "per_prompt";
    case FusionMethod::kVote:
      return "vote";
  }
  CHECK(false);
}

}  // namespace chorus
