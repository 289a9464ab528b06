#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "core/model/model_config.h"
#include "core/model/safetensors.h"

namespace chorus {

// Name and shape of one weight of a checkpoint: a matrix [num_rows, num_columns] whose rows are
// output features, or a vector [num_columns] if num_rows is 0.
struct WeightName {
  std::string name;
  int64_t num_rows = 0;
  int64_t num_columns = 0;
  int64_t num_elements() const { return (num_rows == 0 ? 1 : num_rows) * num_columns; }
};

// The names of a Llama checkpoint, as Hugging Face spells them.
class WeightNames {
 public:
  explicit WeightNames(const ModelConfig& config) : config_(config) {}

  WeightName Embedding() const;
  WeightName FinalNorm() const;
  WeightName Head() const;  // Embedding() if tied
  WeightName InputNorm(int32_t layer) const;
  WeightName PostAttentionNorm(int32_t layer) const;
  // The parts of a fused matrix, in order of rows.
  std::vector<WeightName> Qkv(int32_t layer) const;
  std::vector<WeightName> Output(int32_t layer) const;
  std::vector<WeightName> GateUp(int32_t layer) const;
  std::vector<WeightName> Down(int32_t layer) const;
  // The bias that belongs to a part: [num_rows].
  static WeightName BiasOf(const WeightName& part);

  // Every weight that the model needs, each once, biases included.
  std::vector<WeightName> All() const;

 private:
  const ModelConfig& config_;
};

// Where weights come from: a checkpoint, or a random generator. Const, thread-safe.
class WeightSource {
 public:
  // Writes row `row` of a weight as num_columns floats; a vector has the one row 0.
  using Rows = std::function<void(int64_t row, float* out)>;
  virtual ~WeightSource() = default;

  // OK if the weight is there with that shape; else a Status that says what is wrong with it.
  virtual absl::Status Check(const WeightName& weight) const = 0;
  // REQUIRES: Check(weight) is OK. Valid while the source lives.
  virtual Rows Read(const WeightName& weight) const = 0;
  // The weight will not be read again: its file pages may leave memory.
  virtual void Release(const WeightName& weight) const {}
};

// Reads safetensors.
class FileWeights : public WeightSource {
 public:
  explicit FileWeights(std::unique_ptr<const SafetensorsReader> reader)
      : reader_(std::move(reader)) {}
  absl::Status Check(const WeightName& weight) const override;
  Rows Read(const WeightName& weight) const override;
  void Release(const WeightName& weight) const override;

 private:
  std::unique_ptr<const SafetensorsReader> reader_;
};

// Random weights for benchmarks: matrices uniform with variance 1 / num_columns, so that
// activations keep their size; norms 1; biases 0. A pure function of seed, name and row.
class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(uint64_t seed) : seed_(seed) {}
  absl::Status Check(const WeightName& weight) const override { return absl::OkStatus(); }
  Rows Read(const WeightName& weight) const override;

 private:
  uint64_t seed_;
};

}  // namespace chorus
