#include "core/model/checkpoint.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"

#include "core/base/status_macros.h"
#include "core/model/safetensors.h"

namespace chorus {

absl::StatusOr<Checkpoint> OpenCheckpoint(const ModelOptions& options) {
  const bool is_random = !options.random_shape.empty();
  if (is_random == !options.model_directory.empty()) {
    return absl::InvalidArgumentError(
        "give either a model directory or a shape for random weights");
  }
  Checkpoint checkpoint;
  if (is_random) {
    checkpoint.name = options.random_shape;
    CHORUS_ASSIGN_OR_RETURN(checkpoint.config, ShapeByName(options.random_shape));
    checkpoint.source = std::make_unique<RandomWeights>(options.random_seed);
  } else {
    CHORUS_ASSIGN_OR_RETURN(checkpoint.config, LoadModelConfig(options.model_directory));
    CHORUS_ASSIGN_OR_RETURN(auto reader, SafetensorsReader::Open(options.model_directory));
    checkpoint.source = std::make_unique<FileWeights>(std::move(reader));
    const auto path = std::filesystem::path(options.model_directory + "/").lexically_normal();
    checkpoint.name = path.parent_path().filename().string();
  }
  return checkpoint;
}

}  // namespace chorus
