#pragma once

#include <string_view>

#include "core/engine/request.h"

namespace chorus {

// Lower-case names for metrics and log lines: "attention", "logit_mean", ...
std::string_view MethodName(FusionMethod method);

inline constexpr FusionMethod kAllMethods[] = {FusionMethod::kAttention, FusionMethod::kLogitMean,
                                               FusionMethod::kProbMean,  FusionMethod::kProbMax,
                                               FusionMethod::kLogitMax,  FusionMethod::kPerPrompt,
                                               FusionMethod::kVote};

// The version of the server, as --version, GetModelInfo and build_info give it.
inline constexpr std::string_view kServerVersion = CHORUS_VERSION;

}  // namespace chorus
