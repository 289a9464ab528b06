#include "core/kernels/cuda/attention_probes_cuda.h"
#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/launch_of.h"

namespace chorus {

using device::LaunchOf;

cudaError_t LaunchReduceProbes(const DeviceProbes& probes, int32_t layer, cudaStream_t stream) {
  return device::Start<device::ReduceProbes>(LaunchOf(probes, layer),
                                             dim3(probes.num_probes, probes.num_heads), stream);
}

cudaError_t LaunchMeanProbes(const DeviceProbes& probes, cudaStream_t stream) {
  return device::Start<device::MeanProbes>(LaunchOf(probes, 0), dim3(probes.num_probes), stream);
}

}  // namespace chorus
