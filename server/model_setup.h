#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"
#include "core/model/cuda_module.h"
#include "core/text/prompt_template.h"
#include "core/text/tokenizer.h"
#include "server/config.h"

namespace chorus {

// The tokenizer of --model and what the model's files say about text around a prompt.
struct TextSetup {
  std::unique_ptr<const Tokenizer> tokenizer;
  TextConfig config;
};

// NOT_FOUND or INVALID_ARGUMENT in one line: which file is wrong and how to mend it.
absl::StatusOr<TextSetup> LoadText(const ModelConfigFlags& model);

// Where the model runs.
struct ServedDevices {
  CudaModule* module = nullptr;  // null: on the CPU
  std::vector<int32_t> cuda;     // with a module: at least one
  std::string why;               // of this choice, in a few words
  // The CPU, though the machine has an NVIDIA driver: somebody may want to know.
  bool is_surprising = false;

  std::string names() const;  // "cpu", "cuda:0,cuda:1"
};

// Resolves --devices. Opens the CUDA side only where a GPU is asked for by name, or may be there.
// With "auto" it never fails. NOT_FOUND, FAILED_PRECONDITION or OUT_OF_RANGE: a device that was asked
// for cannot be had, why, and how to mend it. REQUIRES: Validate has accepted `model`.
absl::StatusOr<ServedDevices> ChooseDevices(const ModelConfigFlags& model);

// What LoadRunners would load, without reading a weight; its device is `devices.names()`. Errors as
// LoadText, and INVALID_ARGUMENT for a model that the devices' kernels do not take.
absl::StatusOr<ModelInfo> InspectServedModel(const ModelConfigFlags& model,
                                             const ServedDevices& devices);

// Is told how loading goes on; this one lets it pass.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  // `done` of `total` parts of `what`; from several threads, possibly at once.
  virtual void OnProgress(const std::string& what, int done, int total) {}
  // Something was found that does not keep the model from being served.
  virtual void OnWarning(const std::string& text) {}
};

// One runner a worker, device by device; all workers of a device share one set of weights. Errors
// as LoadText, and RESOURCE_EXHAUSTED for memory.
absl::StatusOr<std::vector<std::unique_ptr<ModelRunner>>> LoadRunners(const ServerConfig& config,
                                                                      const ServedDevices& devices,
                                                                      LoadObserver& observer);

}  // namespace chorus
