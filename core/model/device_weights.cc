#include "core/model/device_weights.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/base/thread_pool.h"
#include "core/kernels/bfloat16.h"
#include "core/model/device_buffer.h"
#include "core/model/rope_tables.h"

namespace chorus {
namespace {

constexpr int64_t kChunkElements = int64_t{4} << 20;  // read at once and then uploaded

// Sizes that a device's matrix products take.
absl::Status CheckSizes(const ModelConfig& config) {
  const auto check = [](const char* field, int32_t value, int32_t multiple) {
    if (value % multiple == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": ", value, " is not valid on a device: must be a multiple of ", multiple));
  };
  CHORUS_RETURN_IF_ERROR(check("hidden_size", config.hidden_size, 8));
  CHORUS_RETURN_IF_ERROR(check("intermediate_size", config.intermediate_size, 8));
  return check("head_dim", config.head_dim, 8);
}

}  // namespace

// Places every array in one block, then fills them one after the other.
class DeviceWeightsLoader {
 public:
  DeviceWeightsLoader(Device& device, const Checkpoint& checkpoint, const ModelOptions& options)
      : device_(device),
        checkpoint_(checkpoint),
        config_(checkpoint.config),
        options_(options),
        names_(config_),
        pool_(std::max(1, options.num_threads)) {}

  absl::StatusOr<std::shared_ptr<const DeviceWeights>> Load() {
    CHORUS_RETURN_IF_ERROR(CheckSizes(config_));
    auto weights = std::make_shared<DeviceWeights>();
    weights->name_ = checkpoint_.name;
    weights->config_ = config_;
    for (const WeightName& weight : names_.All()) {
      CHORUS_RETURN_IF_ERROR(checkpoint_.source->Check(weight));
      weights->num_parameters_ += weight.num_elements();
    }
    Place(*weights);
    weights->weight_bytes_ = placer_.size();
    CHORUS_ASSIGN_OR_RETURN(weights->memory_, device_.Allocate(placer_.size()));
    base_ = static_cast<char*>(weights->memory_->data());
    CHORUS_ASSIGN_OR_RETURN(stream_, device_.CreateStream());
    const absl::Status filled = Fill(*weights);
    const absl::Status end = stream_->Wait();  // before memory may go, too
    CHORUS_RETURN_IF_ERROR(filled);
    CHORUS_RETURN_IF_ERROR(end);
    return weights;
  }

 private:
  // Weights that stand one after the other on the device.
  struct Array {
    std::vector<WeightName> parts;
    bool is_float32 = false;
    std::function<void(const void*)> set;
    int64_t begin = 0;
    int ends_part = 0;  // number of the part of the progress that it ends, or 0
  };

  void Add(std::vector<WeightName> parts, bool is_float32, std::function<void(const void*)> set) {
    int64_t num_elements = 0;
    for (const WeightName& part : parts) num_elements += part.num_elements();
    const int64_t begin = placer_.Place(num_elements * (is_float32 ? 4 : 2));
    arrays_.push_back({std::move(parts), is_float32, std::move(set), begin});
  }

  void AddVector(const WeightName& weight, const float** to) {
    Add({weight}, true, [to](const void* at) { *to = static_cast<const float*>(at); });
  }

  void AddMatrix(const std::vector<WeightName>& parts, bool has_bias, DeviceWeights::Matrix* to) {
    to->in_size = static_cast<int32_t>(parts[0].num_columns);
    std::vector<WeightName> biases;
    for (const WeightName& part : parts) {
      to->out_size += static_cast<int32_t>(part.num_rows);
      biases.push_back(WeightNames::BiasOf(part));
    }
    Add(parts, false, [to](const void* at) { to->weight = at; });
    if (!has_bias) return;
    Add(biases, true, [to](const void* at) { to->bias = static_cast<const float*>(at); });
  }

  void Place(DeviceWeights& weights) {
    AddVector(names_.FinalNorm(), &weights.final_norm_);
    if (!config_.tie_word_embeddings) AddMatrix({names_.Head()}, false, &weights.head_);
    Add({names_.Embedding()}, false, [&](const void* at) { weights.embedding_ = at; });
    arrays_.back().ends_part = 1;
    weights.layers_.resize(config_.num_layers);
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      DeviceWeights::Layer& layer = weights.layers_[i];
      AddVector(names_.InputNorm(i), &layer.input_norm);
      AddVector(names_.PostAttentionNorm(i), &layer.post_attention_norm);
      AddMatrix(names_.Qkv(i), config_.attention_bias, &layer.qkv);
      AddMatrix(names_.Output(i), config_.output_bias, &layer.output);
      AddMatrix(names_.GateUp(i), config_.mlp_bias, &layer.gate_up);
      AddMatrix(names_.Down(i), config_.mlp_bias, &layer.down);
      arrays_.back().ends_part = i + 2;
    }
    cosine_begin_ = placer_.Place(RopeBytes());
    sine_begin_ = placer_.Place(RopeBytes());
  }

  int64_t RopeBytes() const { return int64_t{4} * config_.max_positions * (config_.head_dim / 2); }

  void ShareHead(DeviceWeights& weights) const {
    if (!config_.tie_word_embeddings) return;
    weights.head_ = {weights.embedding_, nullptr, config_.hidden_size, config_.vocab_size};
  }

  absl::Status Fill(DeviceWeights& weights) {
    CHORUS_RETURN_IF_ERROR(LoadRopeTables(weights));
    for (const Array& array : arrays_) {
      array.set(base_ + array.begin);
      CHORUS_RETURN_IF_ERROR(LoadArray(array));
      if (array.ends_part > 0 && options_.progress) {
        options_.progress(array.ends_part, config_.num_layers + 1);
      }
    }
    ShareHead(weights);
    return absl::OkStatus();
  }

  absl::Status LoadArray(const Array& array) {
    char* to = base_ + array.begin;
    for (const WeightName& part : array.parts) {
      const int64_t num_rows = std::max<int64_t>(1, part.num_rows);
      const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / part.num_columns);
      const WeightSource::Rows rows = checkpoint_.source->Read(part);
      for (int64_t begin = 0; begin < num_rows; begin += chunk_rows) {
        const int64_t count = std::min(chunk_rows, num_rows - begin);
        CHORUS_RETURN_IF_ERROR(
            LoadRows(rows, begin, count, part.num_columns, array.is_float32, to));
        to += count * part.num_columns * (array.is_float32 ? 4 : 2);
      }
      checkpoint_.source->Release(part);
    }
    return absl::OkStatus();
  }

  absl::Status LoadRows(const WeightSource::Rows& rows, int64_t begin, int64_t count,
                        int64_t num_columns, bool is_float32, char* to) {
    const int64_t size = count * num_columns;
    if (static_cast<int64_t>(floats_.size()) < size) floats_.resize(size);
    if (static_cast<int64_t>(halves_.size()) < size) halves_.resize(size);
    pool_.ParallelFor(count, [&](int64_t i) {
      float* row = floats_.data() + i * num_columns;
      rows(begin + i, row);
      if (is_float32) return;
      std::transform(row, row + num_columns, halves_.data() + i * num_columns, BFloat16FromFloat);
    });
    return is_float32 ? stream_->Upload(to, floats_.data(), size * 4)
                      : stream_->Upload(to, halves_.data(), size * 2);
  }

  absl::Status LoadRopeTables(DeviceWeights& weights) {
    weights.cosine_ = reinterpret_cast<const float*>(base_ + cosine_begin_);
    weights.sine_ = reinterpret_cast<const float*>(base_ + sine_begin_);
    const int64_t width = config_.head_dim / 2;
    const int64_t chunk = std::min<int64_t>(config_.max_positions, 4096);
    std::vector<float> cosine(chunk * width), sine(chunk * width);
    for (int64_t begin = 0; begin < config_.max_positions; begin += chunk) {
      const int64_t end = std::min<int64_t>(begin + chunk, config_.max_positions);
      FillRopeTables(config_, begin, end, cosine.data(), sine.data());
      const int64_t at = begin * width * 4, num_bytes = (end - begin) * width * 4;
      CHORUS_RETURN_IF_ERROR(stream_->Upload(base_ + cosine_begin_ + at, cosine.data(), num_bytes));
      CHORUS_RETURN_IF_ERROR(stream_->Upload(base_ + sine_begin_ + at, sine.data(), num_bytes));
    }
    return absl::OkStatus();
  }

  Device& device_;
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const ModelOptions& options_;
  const WeightNames names_;
  ThreadPool pool_;
  BlockPlacer placer_;
  std::vector<Array> arrays_;
  int64_t cosine_begin_ = 0, sine_begin_ = 0;
  char* base_ = nullptr;
  std::unique_ptr<DeviceStream> stream_;
  std::vector<float> floats_;     // a chunk as it is read,
  std::vector<uint16_t> halves_;  // and rounded
};

absl::StatusOr<std::shared_ptr<const DeviceWeights>> LoadDeviceWeights(
    Device& device, const ModelOptions& options) {
  if (options.dtype == ModelDtype::kFloat32) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: float32 is not valid on ", device.name(), ": must be bfloat16"));
  }
  try {
    CHORUS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(options));
    return DeviceWeightsLoader(device, checkpoint, options).Load();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of host memory");
  }
}

}  // namespace chorus
