#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/engine/step_plan.h"
#include "core/segment/attention_window.h"

namespace chorus {

// What the engine needs to know of a loaded model.
struct ModelInfo {
  std::string name;
  int32_t vocab_size = 0;
  int32_t max_positions = 0;  // context length: position ids are below this
  int32_t num_kv_slots = 0;   // tokens whose keys and values fit
  std::string device;         // "cpu", "cuda:0"
  std::string dtype;          // "float32", "bfloat16"
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;
  int64_t kv_bytes_per_token = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t hidden_size = 0;
  // What each layer's attention is limited to, [num_layers]; empty if every layer sees everything.
  // If not empty, runs of a step must have their windowed intervals and positions.
  std::vector<AttentionWindow> layer_windows;
};

// Runs steps of a model: the border between the engine, which knows no torch, and the model. Used
// by one worker thread only.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  virtual const ModelInfo& info() const = 0;

  // Writes keys and values of every row into its slot, runs attention as planned, and chooses the
  // tokens. A row's result depends on that row's own sequence only, bit for bit, never on its
  // neighbours in the batch. RESOURCE_EXHAUSTED: out of memory; UNAVAILABLE: the device is lost, no
  // later step can succeed; INTERNAL: anything else; after an error the slots of the step hold
  // nothing.
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan) = 0;
};

}  // namespace chorus
