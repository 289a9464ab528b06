#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels/segment_attention.h"
#include "core/model/model_config.h"
#include "core/model/torch_tensor.h"

namespace chorus {

// The keys and values of one worker: per layer K and V, [num_slots, num_kv_heads, head_dim] in
// float32 or bfloat16, contiguous; a slot holds one token. Memory is reserved at construction and
// becomes resident when a slot is first written. Owned by one runner; not thread-safe.
class KvStorage {
 public:
  // Throws c10::Error if the address space is not to be had. REQUIRES: num_slots >= 1.
  KvStorage(const ModelConfig& config, KvType type, int32_t num_slots);

  KvView Layer(int32_t layer) const;
  int32_t num_slots() const { return num_slots_; }

  // Bytes that one token takes over all layers.
  static int64_t BytesPerToken(const ModelConfig& config, KvType type);

 private:
  KvType type_;
  int32_t num_slots_;
  std::vector<at::Tensor> k_;  // [num_layers]
  std::vector<at::Tensor> v_;
};

}  // namespace chorus
