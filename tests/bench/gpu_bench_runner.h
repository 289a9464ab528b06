#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/model/torch_model_runner.h"

namespace chorus::bench {

struct BenchRunnerOptions {
  int64_t kv_cache_bytes = 0;
  int32_t max_step_rows = 0;
  bool has_graphs = true;
  std::vector<std::string>* warnings = nullptr;  // of making the runner; added to, unless null
};

// A model that is loaded once and gives runners. Outlives them.
struct BenchModel {
  std::function<absl::StatusOr<std::unique_ptr<ModelRunner>>(const BenchRunnerOptions&)>
      create_runner;
  std::string device;                 // where it runs, as results are to say it
  bool takes_graphs = false;          // else has_graphs means nothing
  std::vector<std::string> warnings;  // of loading
};

// `device`: "cuda:0", "cuda:1", ...; "host": the same kernels' sources on simulated thread blocks,
// whose times mean nothing; or "cpu". Errors as the loaders', and INVALID_ARGUMENT for another
// device.
absl::StatusOr<BenchModel> LoadBenchModel(const std::string& device, const ModelOptions& options);

}  // namespace chorus::bench
