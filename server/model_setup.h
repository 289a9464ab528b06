#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"
#include "core/text/prompt_template.h"
#include "core/text/tokenizer.h"
#include "server/config.h"

namespace chorus {

// The tokenizer of --model and what the model's files say about text around a prompt.
struct TextSetup {
  std::unique_ptr<const Tokenizer> tokenizer;
  TextConfig config;
};

// NOT_FOUND or INVALID_ARGUMENT in one line: which file is wrong and how to mend it.
absl::StatusOr<TextSetup> LoadText(const ModelConfigFlags& model);

// What LoadRunners would load, without reading a weight. Errors as LoadText.
absl::StatusOr<ModelInfo> InspectServedModel(const ModelConfigFlags& model);

// One runner a worker over one set of weights. `progress` is told how many of how many parts are
// loaded, from several threads. Errors as LoadText, and RESOURCE_EXHAUSTED for memory.
absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadRunners(
    const ModelConfigFlags& model, std::function<void(int done, int total)> progress);

}  // namespace chorus
