#pragma once

#include <cstdint>

#include "core/model/model_config.h"
#include "core/model/torch_tensor.h"

namespace chorus {

// The activations of one step, all float32 and contiguous. Buffers grow to the largest step seen
// and are then reused: a step allocates nothing. Owned by one runner; not thread-safe.
struct Workspace {
  at::Tensor residual;   // [num_rows, hidden_size]
  at::Tensor normed;     // [num_rows, hidden_size]; after Forward: the final norm of the logit rows
  at::Tensor delta;      // [num_rows, hidden_size] what a block adds to the residual
  at::Tensor qkv;        // [num_rows, q_size + 2 kv_size]
  at::Tensor q;          // [num_rows, num_heads, head_dim]
  at::Tensor attention;  // [num_rows, num_heads, head_dim]
  at::Tensor gate_up;    // [num_rows, 2 intermediate_size]
  at::Tensor activated;  // [num_rows, intermediate_size]
  at::Tensor logits;     // [num_logit_rows, vocab_size]
  at::Tensor combined;   // [num_choices, vocab_size]

  // Makes every buffer but the last two fit `num_rows`. Contents are lost. Throws c10::Error when
  // memory is short.
  void ReserveRows(const ModelConfig& config, int64_t num_rows);
  // The same for logits and combined.
  void ReserveLogits(const ModelConfig& config, int64_t num_logit_rows, int64_t num_choices);
};

}  // namespace chorus
