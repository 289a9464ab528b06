#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"

namespace chorus::bench {

// What a decode step reads of the weights: an embedding table that is not the head, too, is looked
// up only. `model`: a directory, or the name of a shape. Errors as LoadModelConfig and ShapeByName.
absl::StatusOr<int64_t> StepWeightBytes(const std::string& model, const ModelInfo& info);

}  // namespace chorus::bench
