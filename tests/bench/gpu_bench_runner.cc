#include "tests/bench/gpu_bench_runner.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"

namespace chorus::bench {
namespace {

absl::StatusOr<BenchModel> LoadOnCpu(const ModelOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(std::shared_ptr<const SharedWeights> weights, LoadSharedWeights(options));
  BenchModel model;
  model.create_runner = [weights,
                         num_threads = options.num_threads](const BenchRunnerOptions& runner) {
    return CreateTorchModelRunner(weights, {num_threads, runner.kv_cache_bytes});
  };
  return model;
}

}  // namespace

absl::StatusOr<BenchModel> LoadBenchModel(const std::string& device, const ModelOptions& options) {
  if (device == "cpu") return LoadOnCpu(options);
  return absl::InvalidArgumentError(
      absl::StrCat("--device: '", device, "' is not cpu, or cuda:N with a number"));
}

}  // namespace chorus::bench
