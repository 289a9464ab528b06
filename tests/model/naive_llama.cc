#include "tests/model/naive_llama.h"

#include <bit>
#include <cmath>
#include <string>

#include "core/model/random_bits.h"

namespace chorus {
namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

double RoundTo(WeightType type, double value) {
  float rounded = static_cast<float>(value);
  if (type == WeightType::kFloat32) return rounded;
  uint32_t bits = std::bit_cast<uint32_t>(rounded);
  bits += 0x7fffu + ((bits >> 16) & 1u);  // to the nearest, ties to even
  return std::bit_cast<float>(bits & 0xffff0000u);
}

// Whether matrix products of this type round their inputs too, on this machine.
bool RoundsInputs(WeightType type) {
  return PackedLinear::Create(type, 1, 1, [](int32_t, float* out) { *out = 1.0f; })
      ->rounds_inputs();
}

class NaiveLlama {
 public:
  NaiveLlama(const ModelConfig& config, WeightType type, const WeightSource& source)
      : config_(config),
        type_(type),
        rounds_inputs_(RoundsInputs(type)),
        source_(source),
        names_(config) {}

  Matrix Logits(const std::vector<int32_t>& token_ids, const std::vector<int32_t>& positions,
                const std::function<bool(int32_t, int32_t)>& allows) const {
    const Matrix embedding = Read(names_.Embedding(), true);
    Matrix x;
    for (const int32_t id : token_ids) x.push_back(embedding[id]);
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      AddTo(x, Attention(layer, Norm(x, names_.InputNorm(layer)), positions, allows));
      AddTo(x, Mlp(layer, Norm(x, names_.PostAttentionNorm(layer))));
    }
    return Linear(Norm(x, names_.FinalNorm()), names_.Head(), false);
  }

 private:
  Matrix Read(const WeightName& weight, bool is_rounded) const {
    const auto rows = source_.Read(weight);
    Matrix matrix(weight.num_rows == 0 ? 1 : weight.num_rows, Vector(weight.num_columns));
    std::vector<float> row(weight.num_columns);
    for (size_t r = 0; r < matrix.size(); ++r) {
      rows(static_cast<int64_t>(r), row.data());
      for (size_t i = 0; i < row.size(); ++i) {
        matrix[r][i] = is_rounded ? RoundTo(type_, row[i]) : row[i];
      }
    }
    return matrix;
  }

  Matrix Linear(Matrix x, const WeightName& weight, bool has_bias) const {
    if (rounds_inputs_) {
      for (Vector& row : x) {
        for (double& value : row) value = RoundTo(type_, value);
      }
    }
    const Matrix w = Read(weight, true);
    const Vector bias =
        has_bias ? Read(WeightNames::BiasOf(weight), false)[0] : Vector(w.size(), 0.0);
    Matrix y(x.size(), Vector(w.size()));
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t o = 0; o < w.size(); ++o) {
        y[r][o] = bias[o];
        for (size_t i = 0; i < w[o].size(); ++i) y[r][o] += x[r][i] * w[o][i];
      }
    }
    return y;
  }

  Matrix Norm(const Matrix& x, const WeightName& weight) const {
    const Vector scale = Read(weight, false)[0];
    Matrix y = x;
    for (Vector& row : y) {
      double square = 0.0;
      for (const double value : row) square += value * value;
      const double root =
          std::sqrt(square / static_cast<double>(row.size()) + config_.rms_norm_epsilon);
      for (size_t i = 0; i < row.size(); ++i) row[i] = row[i] / root * scale[i];
    }
    return y;
  }

  // Rotates every head of every row: (a, b) of a pair becomes (a cos - b sin, b cos + a sin).
  void Rotate(Matrix& x, const std::vector<int32_t>& positions) const {
    const Vector frequencies = RopeFrequencies(config_);
    const size_t half = frequencies.size();
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t head = 0; head < x[r].size(); head += 2 * half) {
        for (size_t i = 0; i < half; ++i) {
          const double angle = positions[r] * frequencies[i];
          const double a = x[r][head + i], b = x[r][head + half + i];
          x[r][head + i] = a * std::cos(angle) - b * std::sin(angle);
          x[r][head + half + i] = b * std::cos(angle) + a * std::sin(angle);
        }
      }
    }
  }

  Matrix Attention(int32_t layer, const Matrix& x, const std::vector<int32_t>& positions,
                   const std::function<bool(int32_t, int32_t)>& allows) const {
    const auto parts = names_.Qkv(layer);
    Matrix q = Linear(x, parts[0], config_.attention_bias);
    Matrix k = Linear(x, parts[1], config_.attention_bias);
    Matrix v = Linear(x, parts[2], config_.attention_bias);
    Rotate(q, positions);
    Rotate(k, positions);
    for (Matrix* matrix : {&k, &v}) {
      for (Vector& row : *matrix) {
        for (double& value : row) value = RoundTo(type_, value);
      }
    }
    const int32_t width = config_.head_dim;
    Matrix out(x.size(), Vector(config_.q_size(), 0.0));
    for (int32_t row = 0; row < static_cast<int32_t>(x.size()); ++row) {
      for (int32_t head = 0; head < config_.num_heads; ++head) {
        const int32_t kv = head / (config_.num_heads / config_.num_kv_heads) * width;
        double total = 0.0;
        for (int32_t key = 0; key < static_cast<int32_t>(x.size()); ++key) {
          if (!allows(row, key) || !IsInWindow(layer, positions[row], positions[key])) continue;
          double logit = 0.0;
          for (int32_t i = 0; i < width; ++i) logit += q[row][head * width + i] * k[key][kv + i];
          const double weight = std::exp(logit / std::sqrt(width));  // small enough not to overflow
          total += weight;
          for (int32_t i = 0; i < width; ++i) out[row][head * width + i] += weight * v[key][kv + i];
        }
        for (int32_t i = 0; i < width && total > 0.0; ++i) out[row][head * width + i] /= total;
      }
    }
    return Linear(out, names_.Output(layer)[0], config_.output_bias);
  }

  // Whether a layer's sliding window or chunks let a query see a key at or before its position.
  bool IsInWindow(int32_t layer, int32_t query_position, int32_t key_position) const {
    if (config_.layer_windows.empty()) return true;
    const AttentionWindow& window = config_.layer_windows[layer];
    switch (window.kind) {
      case AttentionWindow::Kind::kSliding:
        return query_position - key_position < window.size;
      case AttentionWindow::Kind::kChunked:
        return query_position / window.size == key_position / window.size;
      case AttentionWindow::Kind::kFull:
        return true;
    }
    return false;
  }

  Matrix Mlp(int32_t layer, const Matrix& x) const {
    const auto parts = names_.GateUp(layer);
    Matrix gate = Linear(x, parts[0], config_.mlp_bias);
    const Matrix up = Linear(x, parts[1], config_.mlp_bias);
    for (size_t r = 0; r < gate.size(); ++r) {
      for (size_t i = 0; i < gate[r].size(); ++i) {
        gate[r][i] *= up[r][i] / (1.0 + std::exp(-gate[r][i]));
      }
    }
    return Linear(gate, names_.Down(layer)[0], config_.mlp_bias);
  }

  static void AddTo(Matrix& x, const Matrix& delta) {
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t i = 0; i < x[r].size(); ++i) x[r][i] += delta[r][i];
    }
  }

  const ModelConfig& config_;
  WeightType type_;
  bool rounds_inputs_;
  const WeightSource& source_;
  WeightNames names_;
};

}  // namespace

WeightSource::Rows SeededWeights::Read(const WeightName& weight) const {
  uint64_t seed = seed_;
  for (const char c : weight.name) seed = MixBits(seed + static_cast<unsigned char>(c));
  const int64_t columns = weight.num_columns;
  // Attention peaked and logits spread, so that an error in mask or position shows.
  const double matrix_gain = 2.5 / std::sqrt(static_cast<double>(columns));
  const bool is_matrix = weight.num_rows != 0;
  const bool is_bias = weight.name.ends_with("bias");
  return [=](int64_t row, float* out) {
    for (int64_t i = 0; i < columns; ++i) {
      const double value =
          2.0 * RandomUniform(seed, static_cast<uint64_t>(row * columns + i)) - 1.0;
      out[i] =
          static_cast<float>(is_matrix ? matrix_gain * value : (is_bias ? 0.0 : 1.0) + 0.3 * value);
    }
  };
}

std::vector<std::vector<double>> NaiveLlamaLogits(
    const ModelConfig& config, WeightType type, const WeightSource& source,
    const std::vector<int32_t>& token_ids, const std::vector<int32_t>& positions,
    const std::function<bool(int32_t, int32_t)>& allows) {
  return NaiveLlama(config, type, source).Logits(token_ids, positions, allows);
}

}  // namespace chorus
