#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "core/base/thread_pool.h"
#include "core/engine/step_plan.h"
#include "core/kernels/packed_linear.h"
#include "core/model/attention_probes.h"
#include "core/model/kv_storage.h"
#include "core/model/layer_tiles.h"
#include "core/model/llama_weights.h"
#include "core/model/model_config.h"
#include "core/model/torch_tensor.h"
#include "core/model/workspace.h"

namespace chorus {

// A Llama decoder (Touvron et al., 2023; Grattafiori et al., 2024): RMSNorm before each block,
// rotary positions, grouped-query attention, SwiGLU. Weights are float32 or bfloat16 and packed
// once; activations, accumulators and logits are float32 in both cases. Const after Load and
// thread-safe: workers share one model, each with its own KvStorage, Workspace and ThreadPool.
class LlamaModel {
 public:
  // Told that `done` of `total` parts are loaded; from several threads, possibly at once.
  using Progress = std::function<void(int done, int total)>;

  // Reads and packs all weights, layers in parallel on `pool`. A Status of the source if a weight
  // is missing or of another shape: all are looked for before the first is read. Throws c10::Error
  // or std::bad_alloc when memory is short.
  static absl::StatusOr<std::unique_ptr<const LlamaModel>> Load(const ModelConfig& config,
                                                                WeightType type,
                                                                const WeightSource& source,
                                                                ThreadPool& pool,
                                                                const Progress& progress);

  // Runs all rows of `plan` through the layers, writing their keys and values into `kv`, and leaves
  // the final hidden states of `logit_rows` (ascending, distinct rows of the plan) in
  // workspace.normed, [logit_rows.size(), hidden_size]. Returns what the plan's probes saw, in
  // their order. The result of a row depends neither on other rows nor on probes, bit for bit.
  // REQUIRES: CheckStepPlan has passed.
  std::vector<AttentionProbeResult> Forward(const StepPlan& plan,
                                            const std::vector<int32_t>& logit_rows,
                                            const KvStorage& kv, Workspace& workspace,
                                            ThreadPool& pool) const;

  // The head: logits of the rows `hidden_rows` of the states that Forward left in workspace.normed
  // (distinct; not of the plan) into workspace.logits, [hidden_rows.size(), vocab_size].
  // REQUIRES: ReserveLogits has made room.
  void Logits(const std::vector<int32_t>& hidden_rows, Workspace& workspace,
              ThreadPool& pool) const;

  const ModelConfig& config() const { return config_; }
  WeightType type() const { return type_; }
  int64_t num_parameters() const { return num_parameters_; }
  int64_t weight_bytes() const;

 private:
  struct Layer {
    at::Tensor input_norm;                        // [hidden_size] float32
    std::unique_ptr<const PackedLinear> qkv;      // hidden_size -> q heads, k heads, v heads
    std::unique_ptr<const PackedLinear> output;   // q_size -> hidden_size
    at::Tensor post_attention_norm;               // [hidden_size] float32
    std::unique_ptr<const PackedLinear> gate_up;  // hidden_size -> gate, up
    std::unique_ptr<const PackedLinear> down;     // intermediate_size -> hidden_size
  };

  LlamaModel(const ModelConfig& config, WeightType type) : config_(config), type_(type) {}
  void LoadLayer(const WeightSource& source, int32_t index);
  void LoadEmbedding(const WeightSource& source);
  void FillRopeTables();
  void Embed(const std::vector<int32_t>& token_ids, float* out, ThreadPool& pool) const;
  void WriteKeysAndValues(int32_t index, const StepPlan& plan, const KvStorage& kv,
                          Workspace& workspace, ThreadPool& pool) const;
  void Attend(int32_t index, const StepPlan& plan, const LayerTiles& tiles, const KvStorage& kv,
              AttentionProbes& probes, Workspace& workspace, ThreadPool& pool) const;
  void RunMlp(const Layer& layer, int32_t num_rows, Workspace& workspace, ThreadPool& pool) const;
  AttentionShape attention_shape() const;

  ModelConfig config_;
  WeightType type_;
  int64_t num_parameters_ = 0;
  at::Tensor embedding_;  // [vocab_size, hidden_size] in type_; undefined if tied: the head has it
  std::vector<Layer> layers_;
  at::Tensor final_norm_;                     // [hidden_size] float32
  std::unique_ptr<const PackedLinear> head_;  // hidden_size -> vocab_size
  at::Tensor cosine_;  // [max_positions, head_dim / 2] float32, computed in double
  at::Tensor sine_;
};

}  // namespace chorus
