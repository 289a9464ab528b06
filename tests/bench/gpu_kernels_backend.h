#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/device_kernels.h"

// What gpu_kernels_abi.cc needs of the kernels, once with CUDA and once on simulated thread blocks.
namespace chorus::bench {

// Kinds are 0, mma.sync, and 1, wgmma and tensor copies.
int32_t NumKinds();

// On `stream` of the current device. `arrays` is all that they may touch, which the host back end
// checks.
std::unique_ptr<DeviceKernels> CreateKernels(int32_t kind, void* stream,
                                             const std::vector<device::HostArray>& arrays);

}  // namespace chorus::bench
