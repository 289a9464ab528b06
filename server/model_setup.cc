#include "server/model_setup.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "core/model/torch_model_runner.h"
#include "server/devices.h"
#include "server/free_memory.h"

namespace chorus {
namespace {

ModelDtype ToDtype(const std::string& name) {
  if (name == "float32") return ModelDtype::kFloat32;
  if (name == "bfloat16") return ModelDtype::kBFloat16;
  return ModelDtype::kAuto;
}

ModelOptions MakeModelOptions(const ModelConfigFlags& model) {
  ModelOptions options;
  if (model.random_weights.empty()) {
    options.model_directory = model.directory;
  } else {
    options.random_shape = model.random_weights;
  }
  options.dtype = ToDtype(model.dtype);
  return options;
}

absl::Status Explain(const absl::Status& status, const std::string& directory) {
  if (status.code() != absl::StatusCode::kNotFound) return status;
  return absl::NotFoundError(absl::StrCat(status.message(), ": --model=", directory,
                                          " must be a Hugging Face directory with config.json, "
                                          "tokenizer.json and safetensors weights"));
}

// Which file the CUDA side is, for tests and unusual installations.
std::string CudaModuleFile() {
  const char* const path = std::getenv("CHORUS_CUDA_MODULE");
  return CudaModulePath(path == nullptr ? "" : path);
}

ServedDevices OnCpu(std::string why, bool is_surprising = false) {
  ServedDevices devices;
  devices.why = std::move(why);
  devices.is_surprising = is_surprising;
  return devices;
}

// Cheap questions first: a machine without a GPU loads no library of CUDA.
ServedDevices ChooseAutomatically(const ModelConfigFlags& model) {
  const std::string path = CudaModuleFile();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return OnCpu("this server has no CUDA side");
  if (!HasNvidiaDriver()) return OnCpu("this machine has no NVIDIA driver");
  if (model.dtype == "float32") return OnCpu("float32 is for the CPU only");
  const absl::StatusOr<CudaModule*> module = OpenCudaModule(path);
  if (!module.ok()) return OnCpu(std::string(module.status().message()), true);
  const auto found = (*module)->Devices();
  if (!found.ok()) return OnCpu(std::string(found.status().message()), true);
  ServedDevices devices;
  devices.module = *module;
  devices.why = "every GPU of this machine that can be used";
  for (size_t i = 0; i < found->size(); ++i) {
    if (found->at(i).problem.empty()) devices.cuda.push_back(static_cast<int32_t>(i));
  }
  if (devices.cuda.empty()) return OnCpu(found->at(0).problem, true);
  return devices;
}

absl::Status ForDevices(const absl::Status& status, const std::string& devices) {
  return absl::Status(status.code(), absl::StrCat("--devices=", devices, ": ", status.message()));
}

absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadCpuRunners(
    const ModelConfigFlags& model, LoadObserver& observer) {
  const int hardware = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  ModelOptions options = MakeModelOptions(model);
  options.num_threads = hardware;
  options.progress = [&](int done, int total) { observer.OnProgress("the model", done, total); };
  auto weights = LoadSharedWeights(options);
  if (!weights.ok()) return Explain(weights.status(), model.directory);
  RunnerOptions runner_options;
  runner_options.num_threads = ThreadsPerWorker(model, hardware);
  runner_options.kv_cache_bytes = model.kv_cache_bytes > 0
                                      ? model.kv_cache_bytes
                                      : DefaultKvCacheBytes(FreeMemoryBytes(), model.workers);
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (int32_t worker = 0; worker < model.workers; ++worker) {
    CHORUS_ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner,
                            CreateTorchModelRunner(*weights, runner_options));
    runners.push_back(std::move(runner));
  }
  return runners;
}

// Bytes for each worker's keys and values, on a device that has its weights.
absl::StatusOr<int64_t> DeviceKvCacheBytes(const ModelConfigFlags& model, CudaModule& module,
                                           int32_t device) {
  if (model.kv_cache_bytes > 0) return model.kv_cache_bytes;
  CHORUS_ASSIGN_OR_RETURN(const int64_t free_bytes, module.FreeBytes(device));
  return DefaultDeviceKvCacheBytes(free_bytes, model.workers);
}

absl::Status AddCudaRunners(const ServerConfig& config, CudaModule& module, int32_t device,
                            LoadObserver& observer,
                            std::vector<std::unique_ptr<ModelRunner>>* runners) {
  const ModelConfigFlags& model = config.model;
  const std::string name = absl::StrCat("cuda:", device);
  ModelOptions options = MakeModelOptions(model);
  options.num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  options.progress = [&](int done, int total) {
    observer.OnProgress(absl::StrCat("the model on ", name), done, total);
  };
  const auto weights = module.LoadWeights(device, options);
  if (!weights.ok()) return Explain(weights.status(), model.directory);
  for (const std::string& warning : (*weights)->warnings()) observer.OnWarning(warning);
  CudaRunnerOptions runner_options;
  CHORUS_ASSIGN_OR_RETURN(runner_options.kv_cache_bytes,
                          DeviceKvCacheBytes(model, module, device));
  runner_options.warn = [&](const std::string& text) { observer.OnWarning(text); };
  runner_options.max_step_rows = config.engine.max_step_rows;
  runner_options.use_graphs = model.cuda_graphs;
  for (int32_t worker = 0; worker < model.workers; ++worker) {
    runner_options.progress = [&](int done, int total) {
      observer.OnProgress(absl::StrCat("graphs of worker ", runners->size() + 1), done, total);
    };
    auto runner = module.CreateRunner(*weights, runner_options);
    if (absl::IsResourceExhausted(runner.status())) {
      return absl::ResourceExhaustedError(absl::StrCat(
          runner.status().message(), ": give a smaller --kv_cache_bytes or --max_step_rows, or "
          "fewer --workers"));
    }
    CHORUS_RETURN_IF_ERROR(runner.status());
    runners->push_back(*std::move(runner));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ServedDevices::names() const {
  if (cuda.empty()) return "cpu";
  return absl::StrJoin(cuda, ",", [](std::string* out, int32_t device) {
    absl::StrAppend(out, "cuda:", device);
  });
}

absl::StatusOr<ServedDevices> ChooseDevices(const ModelConfigFlags& model) {
  CHORUS_ASSIGN_OR_RETURN(const DeviceList list, ParseDevices(model.devices));
  if (list.is_auto) return ChooseAutomatically(model);
  if (list.cuda.empty()) return OnCpu("as --devices says");
  const absl::StatusOr<CudaModule*> module = OpenCudaModule(CudaModuleFile());
  if (!module.ok()) return ForDevices(module.status(), model.devices);
  const auto found = (*module)->Devices();
  if (!found.ok()) return ForDevices(found.status(), model.devices);
  const auto num_devices = static_cast<int32_t>(found->size());
  for (const int32_t device : list.cuda) {
    if (device >= num_devices) {
      return absl::OutOfRangeError(absl::StrCat("--devices=", model.devices, ": there is no cuda:",
                                                device, ", the last is cuda:", num_devices - 1));
    }
    const std::string& problem = found->at(static_cast<size_t>(device)).problem;
    if (problem.empty()) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("--devices=", model.devices, ": cuda:", device, ": ", problem));
  }
  ServedDevices devices;
  devices.module = *module;
  devices.cuda = list.cuda;
  devices.why = "as --devices says";
  return devices;
}

absl::StatusOr<TextSetup> LoadText(const ModelConfigFlags& model) {
  if (model.directory.empty()) {
    return absl::InvalidArgumentError(
        "--model is missing: --random_weights replaces the weights only, --model gives the "
        "tokenizer, for instance --model=models/smollm2-135m-instruct");
  }
  auto tokenizer = Tokenizer::Load(absl::StrCat(model.directory, "/tokenizer.json"));
  if (!tokenizer.ok()) return Explain(tokenizer.status(), model.directory);
  auto config = LoadTextConfig(model.directory, **tokenizer);
  if (!config.ok()) return Explain(config.status(), model.directory);
  return TextSetup{*std::move(tokenizer), *std::move(config)};
}

absl::StatusOr<ModelInfo> InspectServedModel(const ModelConfigFlags& model,
                                             const ServedDevices& devices) {
  absl::StatusOr<ModelInfo> info = InspectModel(MakeModelOptions(model));
  if (!info.ok()) return Explain(info.status(), model.directory);
  info->device = devices.names();
  if (devices.module != nullptr) CHORUS_RETURN_IF_ERROR(devices.module->CheckModel(*info));
  return info;
}

absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadRunners(const ServerConfig& config,
                                                                      const ServedDevices& devices,
                                                                      LoadObserver& observer) {
  if (devices.module == nullptr) return LoadCpuRunners(config.model, observer);
  CHORUS_RETURN_IF_ERROR(InspectServedModel(config.model, devices).status());
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (const int32_t device : devices.cuda) {
    CHORUS_RETURN_IF_ERROR(AddCudaRunners(config, *devices.module, device, observer, &runners));
  }
  return runners;
}

}  // namespace chorus
