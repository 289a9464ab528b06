#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "core/engine/engine.h"
#include "core/engine/fusion_strategy.h"
#include "core/engine/model_runner.h"
#include "core/engine/request.h"

namespace chorus {

// Limits that no flag changes.
inline constexpr int32_t kMaxPrompts = 256;
inline constexpr int32_t kMaxTopLogprobs = 20;
inline constexpr int32_t kMaxStopStrings = 16;
inline constexpr int32_t kMaxStopStringBytes = 1024;
inline constexpr int32_t kMaxStopTokenIds = 1024;
inline constexpr int32_t kMaxContinuations = 256;
// Of an Explain request, each of mass and logits: layers x heads x units x probed rows.
inline constexpr int64_t kMaxExplainValues = int64_t{1} << 20;

// Checks every field by itself against the public contract. INVALID_ARGUMENT made by FieldError,
// with the field's path in chorus.v1.GenerateRequest ("sampling.top_p"), that of ExplainParams in
// ExplainRequest ("layers[1]"), that of ScoreParams in ScoreRequest ("continuations[2]"), for the
// first that is out of its range. A setting that the method ignores must be valid too; weights that
// it ignores are refused.
absl::Status ValidateRequest(const Request& request, const ModelInfo& info);

// Checks that all tokens, generated ones included, are within max_request_tokens and the KV space.
// INVALID_ARGUMENT names "prompt", if that alone is too much, or else "stopping.max_new_tokens" or
// the continuation with which they are too many, with the counts. REQUIRES: ValidateRequest is OK.
absl::Status ValidateSize(const Request& request, const ModelInfo& info,
                          const EngineOptions& options);

// Checks the largest position + MaxNewTokens against the model's context; as ValidateSize.
absl::Status ValidatePositions(const Request& request, const FusionPlan& plan,
                               const ModelInfo& info);

}  // namespace chorus
