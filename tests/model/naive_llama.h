#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/kernels/packed_linear.h"
#include "core/model/llama_weights.h"
#include "core/model/model_config.h"

namespace chorus {

// Weights of a small model that only its seed decides, with norms and biases that matter (unlike
// RandomWeights, whose norms are 1).
class SeededWeights : public WeightSource {
 public:
  explicit SeededWeights(uint64_t seed) : seed_(seed) {}
  absl::Status Check(const WeightName& weight) const override { return absl::OkStatus(); }
  Rows Read(const WeightName& weight) const override;

 private:
  uint64_t seed_;
};

// A Llama as the papers write it, in double, with a dense mask: no packing, no cache, no batching.
// Returns the logits of every row, [token_ids.size()][vocab_size]. `type` says what weights, keys
// and values are rounded to, and the inputs of matrix products where PackedLinear rounds them.
// allows(q, k): may row q see key k, as far as config.layer_windows let it; a row that sees nothing
// attends to zero.
std::vector<std::vector<double>> NaiveLlamaLogits(
    const ModelConfig& config, WeightType type, const WeightSource& source,
    const std::vector<int32_t>& token_ids, const std::vector<int32_t>& positions,
    const std::function<bool(int32_t q, int32_t k)>& allows);

}  // namespace chorus
