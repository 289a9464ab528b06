// Any bytes as a config.json: parsed or refused, and what is parsed is a usable shape.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config =
      chorus::ParseModelConfig(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!config.ok()) return 0;
  if (config->head_dim <= 0 || config->num_heads % config->num_kv_heads != 0) std::abort();
  for (const double frequency : chorus::RopeFrequencies(*config)) {
    if (!std::isfinite(frequency) || frequency < 0.0 || frequency > 1.0) std::abort();
  }
  return 0;
}
