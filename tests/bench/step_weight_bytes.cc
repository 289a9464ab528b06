#include "tests/bench/step_weight_bytes.h"

#include <filesystem>

#include "core/base/status_macros.h"
#include "core/model/model_config.h"

namespace chorus::bench {

absl::StatusOr<int64_t> StepWeightBytes(const std::string& model, const ModelInfo& info) {
  CHORUS_ASSIGN_OR_RETURN(const ModelConfig config, std::filesystem::is_directory(model)
                                                        ? LoadModelConfig(model)
                                                        : ShapeByName(model));
  if (config.tie_word_embeddings) return info.weight_bytes;
  const int64_t table = int64_t{config.vocab_size} * config.hidden_size;
  return info.weight_bytes - table * info.weight_bytes / info.num_parameters;
}

}  // namespace chorus::bench
