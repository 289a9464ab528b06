#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"
#include "core/model/model_options.h"

namespace chorus {

// Weights that several runners share. Const; lives as long as the last runner.
class SharedWeights;

// Reads and packs a model's weights.
//   NOT_FOUND           a file, a tensor or the shape's name is missing
//   INVALID_ARGUMENT    config.json or a weight file is not as it should be, or not exactly one of
//                       directory and shape is given
//   RESOURCE_EXHAUSTED  out of memory
absl::StatusOr<std::shared_ptr<const SharedWeights>> LoadSharedWeights(const ModelOptions& options);

// What LoadSharedWeights would load, without reading a weight: config.json, the headers of all
// weight files, and name, shape and type of every tensor are looked at. num_kv_slots is 0,
// weight_bytes what the weights take as they are stored (packing may add a little). Errors as
// LoadSharedWeights.
absl::StatusOr<ModelInfo> InspectModel(const ModelOptions& options);

struct RunnerOptions {
  int num_threads = 1;         // compute threads, the calling one included
  int64_t kv_cache_bytes = 0;  // keys and values of all layers; rounded down to whole tokens
};

// A worker's runner on the CPU. INVALID_ARGUMENT: kv_cache_bytes hold no token, or no thread.
// RESOURCE_EXHAUSTED: the KV memory is not to be had.
absl::StatusOr<std::unique_ptr<ModelRunner>> CreateTorchModelRunner(
    std::shared_ptr<const SharedWeights> weights, const RunnerOptions& options);

}  // namespace chorus
