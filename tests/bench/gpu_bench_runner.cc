#include "tests/bench/gpu_bench_runner.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "core/base/status_macros.h"
#include "core/model/cuda_module.h"
#include "core/model/device_model_runner.h"
#include "core/model/host_device.h"

namespace chorus::bench {
namespace {

std::function<void(const std::string&)> AddTo(std::vector<std::string>* warnings) {
  if (warnings == nullptr) return nullptr;
  return [warnings](const std::string& text) { warnings->push_back(text); };
}

absl::StatusOr<BenchModel> LoadOnCpu(const ModelOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(std::shared_ptr<const SharedWeights> weights, LoadSharedWeights(options));
  BenchModel model;
  model.device = "cpu";
  model.create_runner = [weights,
                         num_threads = options.num_threads](const BenchRunnerOptions& runner) {
    return CreateTorchModelRunner(weights, {num_threads, runner.kv_cache_bytes});
  };
  return model;
}

// The weights give their memory back to the device, so they go first.
struct HostModel {
  HostDevice device;
  std::shared_ptr<const DeviceWeights> weights;
};

absl::StatusOr<BenchModel> LoadOnHost(const ModelOptions& options) {
  auto host = std::make_shared<HostModel>();
  CHORUS_ASSIGN_OR_RETURN(host->weights, LoadDeviceWeights(host->device, options));
  BenchModel model;
  model.device = "host (simulated)";
  model.takes_graphs = true;
  model.create_runner = [host](const BenchRunnerOptions& runner) {
    return CreateDeviceModelRunner(host->device, host->weights,
                                   {.kv_cache_bytes = runner.kv_cache_bytes,
                                    .max_step_rows = runner.max_step_rows,
                                    .use_graphs = runner.has_graphs,
                                    .warn = AddTo(runner.warnings)});
  };
  return model;
}

absl::StatusOr<BenchModel> LoadOnCuda(int32_t device, const ModelOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(CudaModule* const module, OpenCudaModule(CudaModulePath("")));
  CHORUS_RETURN_IF_ERROR(module->Devices().status());
  CHORUS_ASSIGN_OR_RETURN(std::shared_ptr<const CudaWeights> weights,
                          module->LoadWeights(device, options));
  BenchModel model;
  model.device = absl::StrCat("cuda:", device);
  model.warnings = weights->warnings();
  model.takes_graphs = true;
  model.create_runner = [module, weights](const BenchRunnerOptions& runner) {
    CudaRunnerOptions cuda;
    cuda.kv_cache_bytes = runner.kv_cache_bytes;
    cuda.max_step_rows = runner.max_step_rows;
    cuda.use_graphs = runner.has_graphs;
    cuda.warn = AddTo(runner.warnings);
    return module->CreateRunner(weights, cuda);
  };
  return model;
}

}  // namespace

absl::StatusOr<BenchModel> LoadBenchModel(const std::string& device, const ModelOptions& options) {
  if (device == "cpu") return LoadOnCpu(options);
  if (device == "host") return LoadOnHost(options);
  absl::string_view index = device;
  int32_t cuda = 0;
  if (absl::ConsumePrefix(&index, "cuda:") && absl::SimpleAtoi(index, &cuda)) {
    return LoadOnCuda(cuda, options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--device: '", device, "' is not cuda:N with a number, host, or cpu"));
}

}  // namespace chorus::bench
