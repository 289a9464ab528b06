#include "server/model_setup.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/model/torch_model_runner.h"
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

}  // namespace

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

absl::StatusOr<ModelInfo> InspectServedModel(const ModelConfigFlags& model) {
  absl::StatusOr<ModelInfo> info = InspectModel(MakeModelOptions(model));
  if (!info.ok()) return Explain(info.status(), model.directory);
  return info;
}

absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadRunners(
    const ModelConfigFlags& model, std::function<void(int done, int total)> progress) {
  const int hardware = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  ModelOptions options = MakeModelOptions(model);
  options.num_threads = hardware;
  options.progress = std::move(progress);
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

}  // namespace chorus
