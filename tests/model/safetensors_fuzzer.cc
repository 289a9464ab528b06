// Any bytes as a safetensors file: parsed or refused, and what is parsed lies inside the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "core/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tensors = chorus::ParseSafetensorsHeader(data, size, "fuzz");
  if (!tensors.ok()) return 0;
  size_t total = 0;
  for (const auto& [name, entry] : *tensors) {
    if (entry.begin > entry.end || entry.end > size) std::abort();
    total += entry.end - entry.begin;
  }
  if (total > size) std::abort();
  return 0;
}
