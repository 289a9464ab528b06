#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/segment/attention_window.h"

namespace chorus {

// How the rotary frequencies of a checkpoint differ from theta^(-2i / head_dim).
enum class RopeType {
  kDefault,  // not at all
  kLinear,   // all divided by factor
  kLlama3,   // Llama 3.1: long wavelengths divided by factor, short ones kept, a ramp in between
};

struct RopeScaling {
  RopeType type = RopeType::kDefault;
  double factor = 1.0;            // >= 1; 8 for Llama 3.1, 32 for Llama 3.2
  double low_freq_factor = 1.0;   // wavelengths above original / low_freq_factor are scaled fully
  double high_freq_factor = 4.0;  // wavelengths below original / high_freq_factor are not scaled
  int32_t original_max_positions = 8192;  // context before the scaling, tokens
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

// The shape and constants of a Llama model, as Hugging Face's config.json spells them, or of one of
// its relatives that differ in biases and windows only: Mistral, Ministral, Qwen2. A value;
// every ModelConfig that ParseModelConfig or ShapeByName returns has passed their range checks. The
// examples are those of SmolLM2-135M and, after the slash, of Llama-3.2-3B.
struct ModelConfig {
  int32_t hidden_size = 0;             // width of the residual stream: 576 / 3072
  int32_t intermediate_size = 0;       // width of gate and up in the MLP: 1536 / 8192
  int32_t num_layers = 0;              // num_hidden_layers: 30 / 28
  int32_t num_heads = 0;               // num_attention_heads, query heads: 9 / 24
  int32_t num_kv_heads = 0;            // num_key_value_heads, divides num_heads: 3 / 8
  int32_t head_dim = 0;                // even; not always hidden_size / num_heads: 64 / 128
  int32_t vocab_size = 0;              // rows of embedding and head: 49152 / 128256
  int32_t max_positions = 0;           // max_position_embeddings, context in tokens: 8192 / 131072
  double rms_norm_epsilon = 1e-6;      // added to the mean square: 1e-5 / 1e-5
  double rope_theta = 10000.0;         // base of the rotary frequencies: 100000 / 500000
  RopeScaling rope_scaling;            // default / llama3 with factor 32
  bool tie_word_embeddings = false;    // the head is the embedding table: true / true
  bool attention_bias = false;         // q, k and v projections have a bias: false / false
  bool output_bias = false;            // the o projection has one; Qwen2's has not: false / false
  bool mlp_bias = false;               // gate, up and down have a bias: false / false
  std::vector<int32_t> eos_token_ids;  // eos_token_id, a number or a list; may be empty: {2}

  // What each layer's attention is limited to, [num_layers]; empty if every layer sees everything.
  std::vector<AttentionWindow> layer_windows;

  AttentionWindow WindowOf(int32_t layer) const {
    return layer_windows.empty() ? AttentionWindow() : layer_windows[layer];
  }
  int32_t q_size() const { return num_heads * head_dim; }
  int32_t kv_size() const { return num_kv_heads * head_dim; }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Reads the text of a config.json; `file` is named in errors. INVALID_ARGUMENT, naming file and
// field: not JSON, not such a model, a missing or out-of-range number, a feature not supported
// (quantisation, other activations, other RoPE types, other kinds of layers).
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json, const std::string& file);

// Reads `directory`/config.json. NOT_FOUND if it cannot be read, else as ParseModelConfig.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory);

// A published shape: "smollm2-135m", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b". NOT_FOUND
// lists the names.
absl::StatusOr<ModelConfig> ShapeByName(const std::string& name);

// Angular frequency of each rotary pair in radians per position, [head_dim / 2]; pair i joins
// dimensions i and i + head_dim / 2.
std::vector<double> RopeFrequencies(const ModelConfig& config);

}  // namespace chorus
