#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/model/checkpoint.h"
#include "core/model/device.h"
#include "core/model/model_config.h"
#include "core/model/model_options.h"

namespace chorus {

// The weights of a Llama decoder on a device, in bfloat16; norms, biases and rotations float32.
// Loaded once a device and shared by its runners. Const after Load, thread-safe.
class DeviceWeights {
 public:
  struct Matrix {
    const void* weight = nullptr;  // [out_size, in_size]
    const float* bias = nullptr;   // [out_size], or null
    int32_t in_size = 0;
    int32_t out_size = 0;
  };
  struct Layer {
    const float* input_norm = nullptr;           // [hidden_size]
    Matrix qkv;                                  // hidden_size -> q heads, k heads, v heads
    Matrix output;                               // q_size -> hidden_size
    const float* post_attention_norm = nullptr;  // [hidden_size]
    Matrix gate_up;                              // hidden_size -> gate, up
    Matrix down;                                 // intermediate_size -> hidden_size
  };

  const std::string& name() const { return name_; }
  const ModelConfig& config() const { return config_; }
  const Layer& layer(int32_t index) const { return layers_[index]; }
  const void* embedding() const { return embedding_; }  // [vocab_size, hidden_size]
  const float* final_norm() const { return final_norm_; }
  const Matrix& head() const { return head_; }     // hidden_size -> vocab_size
  const float* cosine() const { return cosine_; }  // [max_positions, head_dim / 2]
  const float* sine() const { return sine_; }      // like cosine
  int64_t num_parameters() const { return num_parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  friend class DeviceWeightsLoader;

  std::string name_;
  ModelConfig config_;
  std::vector<Layer> layers_;
  const void* embedding_ = nullptr;
  const float* final_norm_ = nullptr;
  Matrix head_;
  const float* cosine_ = nullptr;
  const float* sine_ = nullptr;
  int64_t num_parameters_ = 0;
  int64_t weight_bytes_ = 0;
  std::unique_ptr<DeviceMemory> memory_;  // of everything above
};

// Reads a model's weights, rounded to nearest-even bfloat16, into one block of the device's memory.
// options.progress is told after every layer, by the calling thread.
//   NOT_FOUND, INVALID_ARGUMENT  as OpenCheckpoint, or a weight is missing or of another shape;
//                                INVALID_ARGUMENT also for dtype float32 and for sizes that a
//                                device's matrix products do not take
//   RESOURCE_EXHAUSTED           the device or the host is out of memory
absl::StatusOr<std::shared_ptr<const DeviceWeights>> LoadDeviceWeights(Device& device,
                                                                       const ModelOptions& options);

}  // namespace chorus
