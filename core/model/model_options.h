#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace chorus {

// Type of weights, keys and values; logits are float32 in every case.
enum class ModelDtype { kAuto, kFloat32, kBFloat16 };  // kAuto: bfloat16

struct ModelOptions {
  std::string model_directory;  // Hugging Face: config.json and model.safetensors (or its index)
  std::string random_shape;     // instead of a directory: a name that ShapeByName knows
  uint64_t random_seed = 0;     // of the random weights
  ModelDtype dtype = ModelDtype::kAuto;
  int num_threads = 1;  // that read and pack
  // Told that `done` of `total` parts are loaded; from several threads, possibly at once. May be
  // null.
  std::function<void(int done, int total)> progress;
};

}  // namespace chorus
