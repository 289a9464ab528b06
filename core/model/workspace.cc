#include "core/model/workspace.h"

namespace chorus {
namespace {

void Grow(at::Tensor& buffer, int64_t num_elements) {
  if (buffer.defined() && buffer.numel() >= num_elements) return;
  buffer = at::Tensor();  // the old one goes first, so that both never stand side by side
  buffer = at::empty({num_elements}, at::kFloat);
}

}  // namespace

void Workspace::ReserveRows(const ModelConfig& config, int64_t num_rows) {
  Grow(residual, num_rows * config.hidden_size);
  Grow(normed, num_rows * config.hidden_size);
  Grow(delta, num_rows * config.hidden_size);
  Grow(qkv, num_rows * (config.q_size() + 2 * config.kv_size()));
  Grow(q, num_rows * config.q_size());
  Grow(attention, num_rows * config.q_size());
  Grow(gate_up, num_rows * 2 * config.intermediate_size);
  Grow(activated, num_rows * config.intermediate_size);
}

void Workspace::ReserveLogits(const ModelConfig& config, int64_t num_logit_rows,
                              int64_t num_choices) {
  Grow(logits, num_logit_rows * config.vocab_size);
  Grow(combined, num_choices * config.vocab_size);
}

}  // namespace chorus
