// A model on a GPU, through the module that a server opens: kernels, matrix products, graphs,
// sampling and probes together.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/model/cuda_module.h"
#include "tests/model/device_model_cases.h"

namespace chorus {
namespace {

absl::StatusOr<CudaModule*> OpenModule() {
  CHORUS_ASSIGN_OR_RETURN(CudaModule* const module, OpenCudaModule(CudaModulePath("")));
  CHORUS_RETURN_IF_ERROR(module->Devices().status());
  return module;
}

struct GpuBackend {
  static std::string WhyAbsent() {
    if (!HasNvidiaDriver()) return "no GPU here: there is no NVIDIA driver";
    const absl::StatusOr<CudaModule*> module = OpenModule();
    return module.ok() ? "" : absl::StrCat("no GPU here: ", module.status().message());
  }
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(const std::string& directory,
                                                             const TestRunnerOptions& options) {
    CHORUS_ASSIGN_OR_RETURN(CudaModule* const module, OpenModule());
    CHORUS_ASSIGN_OR_RETURN(auto weights,
                            module->LoadWeights(/*device=*/0, {.model_directory = directory}));
    for (const std::string& warning : weights->warnings()) ADD_FAILURE() << warning;
    CudaRunnerOptions cuda;
    cuda.kv_cache_bytes = 1 << 20;
    cuda.use_graphs = options.use_graphs;
    cuda.progress = options.progress;
    cuda.warn = options.warn;
    return module->CreateRunner(std::move(weights), cuda);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceModelTest, GpuBackend);

}  // namespace
}  // namespace chorus
