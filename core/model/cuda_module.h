#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"
#include "core/engine/request.h"
#include "core/engine/step_plan.h"
#include "core/model/torch_model_runner.h"

// The CUDA side is a shared library, libchorus_cuda.so, that is opened only where a GPU is asked
// for: a CPU server does not load LibTorch's CUDA libraries, which take seconds and gigabytes.
// Both sides are built together, from the same headers; only pointers to the interfaces below go
// from one to the other.
namespace chorus {

struct CudaDeviceInfo {
  std::string model;        // "NVIDIA H100 80GB HBM3"
  int64_t total_bytes = 0;  // of its memory
  std::string problem;      // why it cannot be used; empty if it can
};

struct CudaRunnerOptions {
  int64_t kv_cache_bytes = 0;  // keys and values of all layers; rounded down to whole tokens
  int32_t max_step_rows = 0;   // rows of the largest step: buffers are sized by it
  bool use_graphs = true;      // steps that only generate are recorded once and replayed
  std::function<void(int done, int total)> progress;  // of recording; may be null
  std::function<void(const std::string& text)> warn;  // what is slower than it could be; may be null
};

// Weights in a device's memory. Const; lives as long as the last runner.
class CudaWeights {
 public:
  virtual ~CudaWeights() = default;

  // What was found at loading that does not keep the model from being served, a line each.
  virtual const std::vector<std::string>& warnings() const = 0;
};

// What the library offers. Thread-safe. Devices are numbered from 0, as CUDA does.
class CudaModule {
 public:
  virtual ~CudaModule() = default;

  // The devices of this machine, at least one. FAILED_PRECONDITION, saying why and how to mend it:
  // none, no driver, or one that is too old.
  virtual absl::StatusOr<std::vector<CudaDeviceInfo>> Devices() = 0;

  // Bytes of the device's memory that could be allocated now.
  virtual absl::StatusOr<int64_t> FreeBytes(int32_t device) = 0;

  // INVALID_ARGUMENT if the kernels do not take a model of this shape.
  virtual absl::Status CheckModel(const ModelInfo& model) = 0;

  // Errors as LoadSharedWeights. INVALID_ARGUMENT: float32, or a model that the kernels do not take.
  // OUT_OF_RANGE: no such device. RESOURCE_EXHAUSTED: the device's memory does not hold them.
  virtual absl::StatusOr<std::shared_ptr<const CudaWeights>> LoadWeights(
      int32_t device, const ModelOptions& options) = 0;

  // A worker's runner, on the device of `weights`; several may share them. RESOURCE_EXHAUSTED: keys,
  // values and buffers do not fit beside what is there.
  virtual absl::StatusOr<std::unique_ptr<ModelRunner>> CreateRunner(
      std::shared_ptr<const CudaWeights> weights, const CudaRunnerOptions& options) = 0;
};

// What the library's one exported function, `chorus_cuda_module`, returns.
struct CudaModuleEntry {
  uint64_t interface = 0;  // kCudaModuleInterface of its build
  CudaModule* module = nullptr;
};
using CudaModuleFunction = CudaModuleEntry (*)();
inline constexpr char kCudaModuleFunction[] = "chorus_cuda_module";

// Differs between builds that do not fit each other: a version, to be raised with the meaning of
// anything above, and the sizes of the types that go from side to side.
constexpr uint64_t CudaModuleInterface() {
  constexpr uint64_t kVersion = 1;
  uint64_t hash = kVersion;
  for (const uint64_t size :
       {sizeof(ModelInfo), sizeof(ModelOptions), sizeof(StepPlan), sizeof(StepResult),
        sizeof(TokenChoice), sizeof(ChosenToken), sizeof(SamplingParams), sizeof(AttentionProbe),
        sizeof(AttentionProbeResult), sizeof(CudaRunnerOptions), sizeof(CudaDeviceInfo)}) {
    hash = hash * 1099511628211u + size;
  }
  return hash;
}
inline constexpr uint64_t kCudaModuleInterface = CudaModuleInterface();

// Where the library lies: `path` if it is not empty, else lib/libchorus_cuda.so beside the folder of
// this program, in an installation as in a build folder.
std::string CudaModulePath(const std::string& path);

// Whether the NVIDIA driver's library is there; nothing else of CUDA is loaded for it.
bool HasNvidiaDriver();

// Opens the library; it stays open until the process ends.
//   NOT_FOUND            there is no such file
//   FAILED_PRECONDITION  it cannot be loaded (a library that it needs is missing), or it is not of
//                        this build
absl::StatusOr<CudaModule*> OpenCudaModule(const std::string& path);

}  // namespace chorus
