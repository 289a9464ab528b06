#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"
#include "core/model/device.h"
#include "core/model/device_weights.h"

namespace chorus {

struct DeviceRunnerOptions {
  int64_t kv_cache_bytes = 0;  // keys and values of all layers; rounded down to whole tokens
  // Memory for steps of so many rows is taken at once; larger ones take more when they come.
  int32_t max_step_rows = 0;
  // Steps of fused rows only, as in decode, are recorded once for sizes up to `max_graph_rows` rows
  // and then started as a whole. The same bits with and without.
  bool use_graphs = true;
  int32_t max_graph_rows = 128;
  // Told that `done` of `total` graphs are recorded, by the calling thread. May be null.
  std::function<void(int done, int total)> progress;
  // Told, once at construction, what is slower than it could be. May be null.
  std::function<void(const std::string& message)> warn;
};

// A worker's runner on a device, which outlives it. Any number may share device and weights.
// INVALID_ARGUMENT: kv_cache_bytes hold no token. RESOURCE_EXHAUSTED: the memory is not to be had.
absl::StatusOr<std::unique_ptr<ModelRunner>> CreateDeviceModelRunner(
    Device& device, std::shared_ptr<const DeviceWeights> weights,
    const DeviceRunnerOptions& options);

}  // namespace chorus
