#include "core/model/llama_weights.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/model/random_bits.h"

namespace chorus {
namespace {

std::string LayerName(int32_t layer, const char* rest) {
  return absl::StrCat("model.layers.", layer, ".", rest, ".weight");
}

// FNV-1a: the same on every machine, which std::hash does not promise.
uint64_t HashName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

WeightName WeightNames::Embedding() const {
  return {"model.embed_tokens.weight", config_.vocab_size, config_.hidden_size};
}

WeightName WeightNames::FinalNorm() const { return {"model.norm.weight", 0, config_.hidden_size}; }

WeightName WeightNames::Head() const {
  if (config_.tie_word_embeddings) return Embedding();
  return {"lm_head.weight", config_.vocab_size, config_.hidden_size};
}

WeightName WeightNames::InputNorm(int32_t layer) const {
  return {LayerName(layer, "input_layernorm"), 0, config_.hidden_size};
}

WeightName WeightNames::PostAttentionNorm(int32_t layer) const {
  return {LayerName(layer, "post_attention_layernorm"), 0, config_.hidden_size};
}

std::vector<WeightName> WeightNames::Qkv(int32_t layer) const {
  return {{LayerName(layer, "self_attn.q_proj"), config_.q_size(), config_.hidden_size},
          {LayerName(layer, "self_attn.k_proj"), config_.kv_size(), config_.hidden_size},
          {LayerName(layer, "self_attn.v_proj"), config_.kv_size(), config_.hidden_size}};
}

std::vector<WeightName> WeightNames::Output(int32_t layer) const {
  return {{LayerName(layer, "self_attn.o_proj"), config_.hidden_size, config_.q_size()}};
}

std::vector<WeightName> WeightNames::GateUp(int32_t layer) const {
  return {{LayerName(layer, "mlp.gate_proj"), config_.intermediate_size, config_.hidden_size},
          {LayerName(layer, "mlp.up_proj"), config_.intermediate_size, config_.hidden_size}};
}

std::vector<WeightName> WeightNames::Down(int32_t layer) const {
  return {{LayerName(layer, "mlp.down_proj"), config_.hidden_size, config_.intermediate_size}};
}

WeightName WeightNames::BiasOf(const WeightName& part) {
  constexpr size_t kSuffixLength = sizeof("weight") - 1;
  return {part.name.substr(0, part.name.size() - kSuffixLength) + "bias", 0, part.num_rows};
}

std::vector<WeightName> WeightNames::All() const {
  std::vector<WeightName> all = {Embedding(), FinalNorm()};
  if (!config_.tie_word_embeddings) all.push_back(Head());
  const auto append = [&all](const std::vector<WeightName>& parts, bool has_bias) {
    for (const WeightName& part : parts) {
      all.push_back(part);
      if (has_bias) all.push_back(BiasOf(part));
    }
  };
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    append({InputNorm(layer), PostAttentionNorm(layer)}, false);
    append(Qkv(layer), config_.attention_bias);
    append(Output(layer), config_.output_bias);
    append(GateUp(layer), config_.mlp_bias);
    append(Down(layer), config_.mlp_bias);
  }
  return all;
}

absl::Status FileWeights::Check(const WeightName& weight) const {
  return reader_->Find(weight.name, weight.num_rows, weight.num_columns).status();
}

WeightSource::Rows FileWeights::Read(const WeightName& weight) const {
  const auto rows = reader_->Find(weight.name, weight.num_rows, weight.num_columns);
  CHECK(rows.ok());
  return [rows = *rows](int64_t row, float* out) { rows.ReadRow(row, out); };
}

void FileWeights::Release(const WeightName& weight) const {
  const auto rows = reader_->Find(weight.name, weight.num_rows, weight.num_columns);
  if (rows.ok()) rows->Release();
}

WeightSource::Rows RandomWeights::Read(const WeightName& weight) const {
  const int64_t columns = weight.num_columns;
  if (weight.num_rows == 0) {
    const float value = absl::EndsWith(weight.name, "bias") ? 0.0f : 1.0f;
    return [columns, value](int64_t, float* out) { std::fill_n(out, columns, value); };
  }
  const uint64_t seed = seed_ ^ HashName(weight.name);
  // Two 32-bit halves a draw; uniform in [-a, a) has variance a^2 / 3.
  const float step = std::sqrt(3.0f / static_cast<float>(columns)) * 0x1p-31f;
  return [columns, seed, step](int64_t row, float* out) {
    for (int64_t i = 0; i < columns; i += 2) {
      const uint64_t bits = RandomBits(seed, static_cast<uint64_t>(row * columns + i));
      out[i] = static_cast<float>(static_cast<int32_t>(bits)) * step;
      if (i + 1 < columns) out[i + 1] = static_cast<float>(static_cast<int32_t>(bits >> 32)) * step;
    }
  };
}

}  // namespace chorus
