#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/sampling_kernels.h"

namespace chorus::device {

template struct KernelStart<RowStatisticsKernel>;
template struct KernelStart<CombineLogitsKernel>;
template struct KernelStart<AdjustLogitsKernel>;
template struct KernelStart<DivergenceKernel>;
template struct KernelStart<ChooseTokensKernel>;

}  // namespace chorus::device
