#pragma once

#include <cstdint>

#include "core/kernels/cuda/sampling_types.h"

namespace chorus::device {

struct SamplingSize {
  int32_t num_rows = 0;
  int32_t num_choices = 0;
  int32_t num_changed_rows = 0;
  int32_t vocab_size = 0;
};

// Sets the launch's sizes and places its statistics from `workspace` on, at multiples of 16 bytes.
// Returns the bytes they take; with null it only counts.
inline int64_t PlaceWorkspace(const SamplingSize& size, void* workspace, SamplingLaunch& launch) {
  launch.vocab_size = size.vocab_size;
  launch.num_splits = (size.vocab_size + kSplitSize - 1) / kSplitSize;
  int64_t used = 0;
  const auto place = [&](auto*& array, int64_t num_rows) {
    if (workspace != nullptr)
      array = reinterpret_cast<decltype(+array)>(static_cast<char*>(workspace) + used);
    const int64_t bytes = num_rows * launch.num_splits * static_cast<int64_t>(sizeof(*array));
    used += (bytes + 15) / 16 * 16;
  };
  place(launch.of_rows, size.num_rows);
  place(launch.of_means, size.num_choices);
  place(launch.of_combined, size.num_choices);
  place(launch.of_changed, size.num_changed_rows);
  place(launch.divergences, size.num_choices);
  return used;
}

inline int64_t SamplingWorkspaceBytes(const SamplingSize& size) {
  SamplingLaunch launch;
  return PlaceWorkspace(size, nullptr, launch);
}

}  // namespace chorus::device
