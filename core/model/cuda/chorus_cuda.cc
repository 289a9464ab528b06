// The CUDA side as the server sees it: the one exported function of libchorus_cuda.so.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/segment_attention_cuda.h"
#include "core/model/cuda/cuda_device.h"
#include "core/model/cuda/settle_algorithms.h"
#include "core/model/cuda_module.h"
#include "core/model/device_model_runner.h"
#include "core/model/device_weights.h"

namespace chorus {
namespace {

class LoadedCudaWeights : public CudaWeights {
 public:
  LoadedCudaWeights(CudaDevice* device, std::shared_ptr<const DeviceWeights> weights,
                    std::vector<std::string> warnings)
      : device_(device), weights_(std::move(weights)), warnings_(std::move(warnings)) {}

  const std::vector<std::string>& warnings() const override { return warnings_; }
  CudaDevice& device() const { return *device_; }
  const std::shared_ptr<const DeviceWeights>& weights() const { return weights_; }

 private:
  CudaDevice* const device_;
  const std::shared_ptr<const DeviceWeights> weights_;
  const std::vector<std::string> warnings_;
};

// A model's products, one for each algorithm that its steps use.
std::vector<DeviceLinearArgs> ProductsOf(const DeviceWeights& weights) {
  std::vector<DeviceLinearArgs> products;
  const auto add = [&](RowKind kind, const DeviceWeights::Matrix& matrix, bool is_float32) {
    products.push_back({.kind = kind,
                        .weight = matrix.weight,
                        .in_size = matrix.in_size,
                        .out_size = matrix.out_size,
                        .is_output_float32 = is_float32});
  };
  const DeviceWeights::Layer& layer = weights.layer(0);
  for (const RowKind kind : {RowKind::kOwn, RowKind::kFused}) {
    for (const auto* matrix : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
      add(kind, *matrix, /*is_float32=*/false);
    }
  }
  add(RowKind::kFused, weights.head(), /*is_float32=*/true);
  return products;
}

// Settles on an algorithm for each product. Returns warnings: what could not be had.
absl::StatusOr<std::vector<std::string>> SettleAlgorithms(
    CudaDevice& device, const std::vector<DeviceLinearArgs>& products) {
  std::vector<std::string> warnings;
  CHORUS_ASSIGN_OR_RETURN(const auto stream, device.CreateStream());
  for (const DeviceLinearArgs& product : products) {
    CHORUS_ASSIGN_OR_RETURN(const bool is_settled,
                            SettleAlgorithm(device, *stream, device.linear_algorithms(), product));
    if (is_settled) continue;
    warnings.push_back(absl::StrCat(
        "no algorithm of cuBLASLt for the matrix product of ", product.out_size, " by ",
        product.in_size, " on ", device.name(),
        " gives rows the same bits in every batch: answers may depend on what runs beside them"));
  }
  return warnings;
}

class LoadedCudaModule : public CudaModule {
 public:
  absl::StatusOr<std::vector<CudaDeviceInfo>> Devices() override { return ListCudaDevices(); }

  absl::StatusOr<int64_t> FreeBytes(int32_t index) override {
    CHORUS_ASSIGN_OR_RETURN(const CudaDevice* const device, GetDevice(index));
    return device->FreeBytes();
  }

  absl::Status CheckModel(const ModelInfo& model) override {
    const AttentionShape shape = {.num_heads = model.num_heads,
                                  .num_kv_heads = model.num_kv_heads,
                                  .head_dim = model.head_dim};
    if (CudaAttentionTakes(shape) || CudaPlainAttentionTakes(shape)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the CUDA kernels do not take ", model.num_heads, " heads of ", model.head_dim,
                     " over ", model.num_kv_heads, " key-value heads: use --devices=cpu"));
  }

  absl::StatusOr<std::shared_ptr<const CudaWeights>> LoadWeights(
      int32_t index, const ModelOptions& options) override {
    CHORUS_ASSIGN_OR_RETURN(CudaDevice* const device, GetDevice(index));
    CHORUS_ASSIGN_OR_RETURN(auto weights, LoadDeviceWeights(*device, options));
    CHORUS_ASSIGN_OR_RETURN(std::vector<std::string> warnings,
                            SettleAlgorithms(*device, ProductsOf(*weights)));
    return std::make_shared<LoadedCudaWeights>(device, std::move(weights), std::move(warnings));
  }

  absl::StatusOr<std::unique_ptr<ModelRunner>> CreateRunner(
      std::shared_ptr<const CudaWeights> weights, const CudaRunnerOptions& options) override {
    // No other class has it as its base.
    const auto& loaded = static_cast<const LoadedCudaWeights&>(*weights);
    DeviceRunnerOptions runner_options;
    runner_options.kv_cache_bytes = options.kv_cache_bytes;
    runner_options.max_step_rows = options.max_step_rows;
    runner_options.use_graphs = options.use_graphs;
    runner_options.progress = options.progress;
    runner_options.warn = options.warn;
    return CreateDeviceModelRunner(loaded.device(), loaded.weights(), runner_options);
  }

 private:
  // The device, made when it is first asked for and kept: runners refer to it.
  absl::StatusOr<CudaDevice*> GetDevice(int32_t index) {
    absl::MutexLock lock(&mutex_);
    std::unique_ptr<CudaDevice>& device = devices_[index];
    if (device == nullptr) {
      CHORUS_ASSIGN_OR_RETURN(device, CudaDevice::Create(index));
    }
    return device.get();
  }

  absl::Mutex mutex_;
  std::map<int32_t, std::unique_ptr<CudaDevice>> devices_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace
}  // namespace chorus

extern "C" __attribute__((visibility("default"))) chorus::CudaModuleEntry chorus_cuda_module() {
  // Never destroyed: runners may outlive any order of destruction at exit.
  static auto* const module = new chorus::LoadedCudaModule();
  return {.interface = chorus::kCudaModuleInterface, .module = module};
}
