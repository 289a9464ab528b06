#include "core/kernels/cuda/attention_probes_cuda.h"
#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/reduce_probes.h"

namespace chorus {
namespace {

device::ProbeLaunch LaunchOf(const CudaProbes& probes, int32_t layer) {
  device::ProbeLaunch launch;
  launch.tasks = probes.tasks;
  launch.pieces = probes.pieces;
  launch.piece_begins = probes.piece_begins;
  launch.layer_order = probes.layer_order + int64_t{layer} * probes.num_probes;
  launch.head_order = probes.head_order;
  launch.scalings = probes.scalings;
  launch.logits = probes.logits;
  launch.mass_sums = probes.mass_sums;
  launch.mean_mass = probes.mean_mass;
  launch.mass = probes.mass;
  launch.mean_logits = probes.mean_logits;
  launch.num_heads = probes.num_heads;
  launch.is_first_layer = layer == 0 ? 1 : 0;
  launch.mean_factor =
      1.0f / (static_cast<float>(probes.num_layers) * static_cast<float>(probes.num_heads));
  return launch;
}

}  // namespace

cudaError_t LaunchReduceProbes(const CudaProbes& probes, int32_t layer, cudaStream_t stream) {
  return device::Start<device::ReduceProbes>(LaunchOf(probes, layer),
                                             dim3(probes.num_probes, probes.num_heads), stream);
}

cudaError_t LaunchMeanProbes(const CudaProbes& probes, cudaStream_t stream) {
  return device::Start<device::MeanProbes>(LaunchOf(probes, 0), dim3(probes.num_probes), stream);
}

}  // namespace chorus
