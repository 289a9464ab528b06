#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "core/model/llama_weights.h"
#include "core/model/model_config.h"
#include "core/model/model_options.h"

namespace chorus {

// A model before its weights are read.
struct Checkpoint {
  std::string name;
  ModelConfig config;
  std::unique_ptr<const WeightSource> source;
};

// Reads config.json and the headers of all weight files, or makes a source of random weights.
// INVALID_ARGUMENT: not exactly one of directory and shape is given, or a file is not as it should
// be. NOT_FOUND: a file or the shape's name is missing.
absl::StatusOr<Checkpoint> OpenCheckpoint(const ModelOptions& options);

}  // namespace chorus
