#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "core/model/device.h"
#include "core/model/device_step.h"
#include "core/model/device_weights.h"

namespace chorus {

// The activations of one step: pointers into one block of a device's memory.
struct DeviceActivations {
  float* residual = nullptr;       // [num_rows, hidden_size]
  float* kept_residual = nullptr;  // like residual, of the kept rows
  char* normed = nullptr;          // [num_rows, hidden_size]; after Forward: of the kept rows
  char* delta = nullptr;           // [num_rows, hidden_size]
  char* qkv = nullptr;             // [num_rows, q_size + 2 kv_size]
  char* q = nullptr;               // [num_rows, q_size]
  char* attention = nullptr;       // [num_rows, q_size]
  char* gate_up = nullptr;         // [num_rows, 2 intermediate_size]
  char* activated = nullptr;       // [num_rows, intermediate_size]

  // With null only the bytes are counted, which go to `num_bytes`.
  static DeviceActivations Place(const ModelConfig& config, int64_t num_rows, char* base,
                                 int64_t* num_bytes);
};

// Keys and values of all layers: one after the other, k before v, each [num_slots, num_kv_heads,
// head_dim] bfloat16.
struct DeviceKv {
  char* base = nullptr;
  int64_t layer_bytes = 0;  // of k or v
  int32_t num_slots = 0;

  char* K(int32_t layer) const { return base + 2 * layer * layer_bytes; }
  char* V(int32_t layer) const { return K(layer) + layer_bytes; }
};

// Where the attention of a step's probed rows goes.
struct DeviceProbeBuffers {
  float* logits = nullptr;
  float* mass_sums = nullptr;
  float* mean_mass = nullptr;
  float* mass = nullptr;
  float* mean_logits = nullptr;
};

// Everything that a pass over the layers touches.
struct DeviceForwardArgs {
  DeviceStepView step;
  DeviceActivations activations;
  DeviceKv kv;
  float* attention_workspace = nullptr;
  DeviceProbeBuffers probes;
};

// A Llama decoder as work of a stream: nothing here allocates or waits, so that it can be recorded.
// Rows of each kind are multiplied by themselves, so that a row's bits depend on itself alone.
class DeviceModel {
 public:
  DeviceModel(const DeviceWeights& weights, const StepTraits& traits)
      : weights_(weights), config_(weights.config()), traits_(traits) {}

  // Runs all rows through the layers, writing their keys and values, and leaves the final norm of
  // the kept rows in activations.normed.
  absl::Status Forward(const DeviceForwardArgs& args, DeviceStream& stream) const;

  // logits [num_rows, vocab_size] float32 of such rows of `normed`.
  absl::Status Logits(const void* normed, int32_t num_rows, float* logits,
                      DeviceStream& stream) const;

 private:
  // Rows of which the first are own.
  struct Rows {
    int32_t num_rows = 0;
    int32_t num_own_rows = 0;
  };
  absl::Status Multiply(const DeviceWeights::Matrix& matrix, const Rows& rows, const char* x,
                        char* y, DeviceStream& stream) const;
  absl::Status WriteKeysAndValues(int32_t index, const DeviceForwardArgs& args,
                                  DeviceStream& stream) const;
  absl::Status Attend(int32_t index, const DeviceForwardArgs& args, DeviceStream& stream) const;
  absl::Status Probe(int32_t index, const DeviceForwardArgs& args,
                     const DeviceAttentionArgs& attention, DeviceStream& stream) const;
  absl::Status KeepRows(const DeviceForwardArgs& args, DeviceActivations& activations,
                        DeviceStream& stream) const;
  absl::Status RunMlp(const DeviceWeights::Layer& layer, const Rows& rows,
                      const DeviceActivations& activations, DeviceStream& stream) const;

  const DeviceWeights& weights_;
  const ModelConfig& config_;
  const StepTraits& traits_;
};

}  // namespace chorus
