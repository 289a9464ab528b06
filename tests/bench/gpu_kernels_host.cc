// The same kernels' sources on simulated thread blocks, for gpu_kernels_abi.cc.
#include "core/kernels/cuda/host_kernels.h"
#include "tests/bench/gpu_kernels_backend.h"

namespace chorus::bench {

int32_t NumKinds() { return 2; }

std::unique_ptr<DeviceKernels> CreateKernels(int32_t kind, void*,
                                             const std::vector<device::HostArray>& arrays) {
  return CreateHostKernels([](const HostWork& work) { return work(); }, [arrays] { return arrays; },
                           {.is_hopper = kind == 1});
}

}  // namespace chorus::bench
