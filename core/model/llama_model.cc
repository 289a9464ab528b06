#include "core/model/llama_model.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>

#include "core/base/check.h"
#include "core/base/status_macros.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/segment_attention.h"
#include "core/model/rope_tables.h"

namespace chorus {
namespace {

at::Tensor LoadVector(const WeightSource& source, const WeightName& weight) {
  at::Tensor vector = at::empty({weight.num_columns}, at::kFloat);
  source.Read(weight)(0, vector.mutable_data_ptr<float>());
  return vector;
}

// Packs matrices of one width, stacked by rows, into one.
std::unique_ptr<const PackedLinear> LoadFused(const WeightSource& source, WeightType type,
                                              const std::vector<WeightName>& parts, bool has_bias) {
  struct Part {
    int64_t end;  // one past its last row in the fused matrix
    WeightSource::Rows rows;
  };
  std::vector<Part> readers;
  std::vector<float> bias;
  int64_t num_rows = 0;
  for (const WeightName& part : parts) {
    num_rows += part.num_rows;
    readers.push_back({num_rows, source.Read(part)});
    if (!has_bias) continue;
    bias.resize(num_rows);
    source.Read(WeightNames::BiasOf(part))(0, bias.data() + num_rows - part.num_rows);
  }
  const auto read_row = [&readers](int32_t row, float* out) {
    int64_t begin = 0;
    for (const Part& part : readers) {
      if (row < part.end) return part.rows(row - begin, out);
      begin = part.end;
    }
  };
  auto packed = PackedLinear::Create(type, static_cast<int32_t>(parts[0].num_columns),
                                     static_cast<int32_t>(num_rows), read_row, std::move(bias));
  for (const WeightName& part : parts) source.Release(part);
  return packed;
}

// Moves `rows` (ascending) of a [*, width] matrix to its front.
void KeepRows(const std::vector<int32_t>& rows, int64_t width, float* matrix) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == static_cast<int32_t>(i)) continue;
    std::memcpy(matrix + i * width, matrix + rows[i] * width, width * sizeof(float));
  }
}

float* Data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

}  // namespace

absl::StatusOr<std::unique_ptr<const LlamaModel>> LlamaModel::Load(const ModelConfig& config,
                                                                   WeightType type,
                                                                   const WeightSource& source,
                                                                   ThreadPool& pool,
                                                                   const Progress& progress) {
  std::unique_ptr<LlamaModel> model(new LlamaModel(config, type));
  for (const WeightName& weight : WeightNames(config).All()) {
    CHORUS_RETURN_IF_ERROR(source.Check(weight));
    model->num_parameters_ += weight.num_elements();
  }
  model->FillRopeTables();
  model->layers_.resize(config.num_layers);
  const int num_parts = config.num_layers + 1;
  std::atomic<int> num_done{0};
  std::vector<std::exception_ptr> failures(num_parts);  // none may leave a thread of the team
  // The embedding and head are the largest part, so they go first.
  pool.ParallelFor(num_parts, [&](int64_t part) {
    try {
      if (part == 0) {
        model->LoadEmbedding(source);
      } else {
        model->LoadLayer(source, static_cast<int32_t>(part - 1));
      }
    } catch (...) {
      failures[part] = std::current_exception();
    }
    const int done = num_done.fetch_add(1) + 1;
    if (progress) progress(done, num_parts);
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return std::unique_ptr<const LlamaModel>(std::move(model));
}

void LlamaModel::LoadLayer(const WeightSource& source, int32_t index) {
  const WeightNames names(config_);
  Layer& layer = layers_[index];
  layer.input_norm = LoadVector(source, names.InputNorm(index));
  layer.post_attention_norm = LoadVector(source, names.PostAttentionNorm(index));
  layer.qkv = LoadFused(source, type_, names.Qkv(index), config_.attention_bias);
  layer.output = LoadFused(source, type_, names.Output(index), config_.output_bias);
  layer.gate_up = LoadFused(source, type_, names.GateUp(index), config_.mlp_bias);
  layer.down = LoadFused(source, type_, names.Down(index), config_.mlp_bias);
}

void LlamaModel::LoadEmbedding(const WeightSource& source) {
  const WeightNames names(config_);
  final_norm_ = LoadVector(source, names.FinalNorm());
  head_ = LoadFused(source, type_, {names.Head()}, /*has_bias=*/false);
  if (config_.tie_word_embeddings) return;
  const auto rows = source.Read(names.Embedding());
  const int64_t width = config_.hidden_size;
  if (type_ == WeightType::kFloat32) {
    embedding_ = at::empty({config_.vocab_size, width}, at::kFloat);
    for (int64_t i = 0; i < config_.vocab_size; ++i) rows(i, Data(embedding_) + i * width);
  } else {
    embedding_ = at::empty({config_.vocab_size, width}, at::kBFloat16);
    std::vector<float> row(width);
    for (int64_t i = 0; i < config_.vocab_size; ++i) {
      rows(i, row.data());
      at::BFloat16* out = embedding_.mutable_data_ptr<at::BFloat16>() + i * width;
      for (int64_t j = 0; j < width; ++j) out[j] = at::BFloat16(row[j]);
    }
  }
  source.Release(names.Embedding());
}

void LlamaModel::FillRopeTables() {
  cosine_ = at::empty({config_.max_positions, config_.head_dim / 2}, at::kFloat);
  sine_ = at::empty({config_.max_positions, config_.head_dim / 2}, at::kFloat);
  chorus::FillRopeTables(config_, 0, config_.max_positions, Data(cosine_), Data(sine_));
}

AttentionShape LlamaModel::attention_shape() const {
  return {.num_heads = config_.num_heads,
          .num_kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .softmax_scale = static_cast<float>(1.0 / std::sqrt(double{1.0} * config_.head_dim))};
}

void LlamaModel::Embed(const std::vector<int32_t>& token_ids, float* out, ThreadPool& pool) const {
  const int64_t width = config_.hidden_size;
  pool.ParallelFor(static_cast<int64_t>(token_ids.size()), [&](int64_t row) {
    float* to = out + row * width;
    if (!embedding_.defined()) {
      head_->ReadRow(token_ids[row], to);
    } else if (type_ == WeightType::kFloat32) {
      std::memcpy(to, Data(embedding_) + token_ids[row] * width, width * sizeof(float));
    } else {
      const at::BFloat16* from = embedding_.const_data_ptr<at::BFloat16>() + token_ids[row] * width;
      for (int64_t i = 0; i < width; ++i) to[i] = static_cast<float>(from[i]);
    }
  });
}

// normed -> qkv -> q; keys and values into their slots -> moves.
void LlamaModel::WriteKeysAndValues(int32_t index, const StepPlan& plan, const KvStorage& kv,
                                    Workspace& workspace, ThreadPool& pool) const {
  const int32_t num_rows = plan.num_rows();
  const int64_t qkv_width = config_.q_size() + 2 * config_.kv_size();
  layers_[index].qkv->Forward(Data(workspace.normed), config_.hidden_size, num_rows,
                              Data(workspace.qkv), qkv_width, pool);
  RopeAndWriteKv({.shape = attention_shape(),
                  .qkv = Data(workspace.qkv),
                  .positions = plan.positions.data(),
                  .slots = plan.slots.data(),
                  .num_rows = num_rows,
                  .cosine = Data(cosine_),
                  .sine = Data(sine_),
                  .q_out = Data(workspace.q),
                  .kv = kv.Layer(index)},
                 pool);
  const std::vector<KvMove>& moves = plan.attention.moves;
  MoveKv({.shape = attention_shape(),
          .moves = moves.data(),
          .num_moves = static_cast<int64_t>(moves.size()),
          .cosine = Data(cosine_),
          .sine = Data(sine_),
          .kv = kv.Layer(index)},
         pool);
}

// q, keys and values -> attention, and what the probes see of it.
void LlamaModel::Attend(int32_t index, const StepPlan& plan, const LayerTiles& tiles,
                        const KvStorage& kv, AttentionProbes& probes, Workspace& workspace,
                        ThreadPool& pool) const {
  SegmentAttentionCpu(plan.attention, tiles.Of(index),
                      {.shape = attention_shape(),
                       .q = Data(workspace.q),
                       .kv = kv.Layer(index),
                       .out = Data(workspace.attention),
                       .window = config_.WindowOf(index),
                       .statistics = probes.BeginLayer(index)},
                      pool);
  probes.EndLayer(index);
}

// attention -> delta, then residual += delta, then the MLP of its norm -> delta.
void LlamaModel::RunMlp(const Layer& layer, int32_t num_rows, Workspace& workspace,
                        ThreadPool& pool) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  layer.output->Forward(Data(workspace.attention), config_.q_size(), num_rows,
                        Data(workspace.delta), hidden, pool);
  AddRmsNorm(Data(workspace.residual), Data(workspace.delta), Data(layer.post_attention_norm),
             num_rows, config_.hidden_size, static_cast<float>(config_.rms_norm_epsilon),
             Data(workspace.normed), pool);
  layer.gate_up->Forward(Data(workspace.normed), hidden, num_rows, Data(workspace.gate_up),
                         2 * inner, pool);
  SiluMultiply(Data(workspace.gate_up), num_rows, config_.intermediate_size,
               Data(workspace.activated), pool);
  layer.down->Forward(Data(workspace.activated), inner, num_rows, Data(workspace.delta), hidden,
                      pool);
}

std::vector<AttentionProbeResult> LlamaModel::Forward(const StepPlan& plan,
                                                      const std::vector<int32_t>& logit_rows,
                                                      const KvStorage& kv, Workspace& workspace,
                                                      ThreadPool& pool) const {
  int32_t num_rows = plan.num_rows();
  const int32_t hidden = config_.hidden_size;
  const float epsilon = static_cast<float>(config_.rms_norm_epsilon);
  const LayerTiles tiles(plan.attention, attention_shape(), config_);
  AttentionProbes probes(plan, config_);
  workspace.ReserveRows(config_, num_rows);
  float* residual = Data(workspace.residual);
  Embed(plan.token_ids, residual, pool);
  for (int32_t index = 0; index < config_.num_layers; ++index) {
    const Layer& layer = layers_[index];
    const bool is_last = index + 1 == config_.num_layers;
    if (index == 0) {
      RmsNorm(residual, Data(layer.input_norm), num_rows, hidden, epsilon, Data(workspace.normed),
              pool);
    } else {
      AddRmsNorm(residual, Data(workspace.delta), Data(layer.input_norm), num_rows, hidden, epsilon,
                 Data(workspace.normed), pool);
    }
    WriteKeysAndValues(index, plan, kv, workspace, pool);
    if (!is_last || !logit_rows.empty() || !probes.empty()) {
      Attend(index, plan, tiles, kv, probes, workspace, pool);
    }
    if (is_last) {
      // Past the last keys and values only the rows that lead to a choice matter.
      KeepRows(logit_rows, hidden, residual);
      KeepRows(logit_rows, config_.q_size(), Data(workspace.attention));
      num_rows = static_cast<int32_t>(logit_rows.size());
      if (num_rows == 0) break;
    }
    RunMlp(layer, num_rows, workspace, pool);
  }
  if (num_rows > 0) {
    AddRmsNorm(residual, Data(workspace.delta), Data(final_norm_), num_rows, hidden, epsilon,
               Data(workspace.normed), pool);
  }
  return probes.TakeResults();
}

void LlamaModel::Logits(const std::vector<int32_t>& hidden_rows, Workspace& workspace,
                        ThreadPool& pool) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t num_rows = static_cast<int64_t>(hidden_rows.size());
  CHECK(workspace.logits.numel() >= num_rows * config_.vocab_size);
  CHECK(workspace.delta.numel() >= num_rows * hidden);
  // Side by side, in a buffer that is free after Forward.
  float* gathered = Data(workspace.delta);
  for (int64_t i = 0; i < num_rows; ++i) {
    std::memcpy(gathered + i * hidden, Data(workspace.normed) + hidden_rows[i] * hidden,
                hidden * sizeof(float));
  }
  head_->Forward(gathered, hidden, static_cast<int32_t>(num_rows), Data(workspace.logits),
                 config_.vocab_size, pool);
}

int64_t LlamaModel::weight_bytes() const {
  int64_t bytes = head_->weight_bytes() + static_cast<int64_t>(final_norm_.nbytes());
  if (embedding_.defined()) bytes += static_cast<int64_t>(embedding_.nbytes());
  for (const Layer& layer : layers_) {
    bytes += layer.qkv->weight_bytes() + layer.output->weight_bytes() +
             layer.gate_up->weight_bytes() + layer.down->weight_bytes() +
             static_cast<int64_t>(layer.input_norm.nbytes() + layer.post_attention_norm.nbytes());
  }
  return bytes;
}

}  // namespace chorus
