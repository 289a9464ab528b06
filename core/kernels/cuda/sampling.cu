#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/sampling_cuda.h"
#include "core/kernels/cuda/sampling_kernels.h"
#include "core/kernels/cuda/sampling_workspace.h"

namespace chorus {

int64_t CudaSamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices, int32_t num_changed_rows,
                                   int32_t vocab_size) {
  device::SamplingLaunch launch;
  return device::PlaceWorkspace({num_rows, num_choices, num_changed_rows, vocab_size}, nullptr,
                                launch);
}

cudaError_t LaunchSampling(const DeviceSamplingArgs& args, cudaStream_t stream) {
  device::SamplingLaunch launch;
  launch.in = args.in;
  launch.out = args.out;
  launch.logits = args.logits;
  launch.combined = args.combined;
  launch.changed = args.changed;
  device::PlaceWorkspace({args.num_rows, args.num_choices, args.num_changed_rows, args.vocab_size},
                         args.workspace, launch);
  const dim3 rows(args.num_rows, launch.num_splits), choices(args.num_choices, launch.num_splits);
  cudaError_t error = device::Start<device::RowStatisticsKernel>(launch, rows, stream);
  if (error == cudaSuccess && args.combines) {
    error = device::Start<device::CombineLogitsKernel>(launch, choices, stream);
  }
  if (error == cudaSuccess && args.adjusts) {
    error = device::Start<device::AdjustLogitsKernel>(launch, choices, stream);
  }
  if (error == cudaSuccess && args.compares) {
    error = device::Start<device::DivergenceKernel>(launch, choices, stream);
  }
  if (error != cudaSuccess) return error;
  return device::Start<device::ChooseTokensKernel>(launch, dim3(args.num_choices), stream);
}

}  // namespace chorus
