#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/device_kernels.h"

namespace chorus {

using HostWork = std::function<absl::Status()>;
// Does the work now, or keeps it.
using HostSubmit = std::function<absl::Status(HostWork)>;
// The memory that kernels may touch when they run.
using HostArrays = std::function<std::vector<device::HostArray>()>;

struct HostKernelsOptions {
  bool is_hopper = false;  // as on compute capability 9.0
  bool has_short_spans = false;  // and few, so that rows of some hundred keys have longer ones
  // Of what changes no result: the order in which warps advance; of HopperAttention, the tiles of a
  // block.
  uint32_t seed = 1;
};

// The kernel sources on simulated thread blocks, checked for races and bounds; what is wrong is
// INTERNAL with the checker's words.
std::unique_ptr<DeviceKernels> CreateHostKernels(HostSubmit submit, HostArrays arrays,
                                                 const HostKernelsOptions& options = {});

}  // namespace chorus
