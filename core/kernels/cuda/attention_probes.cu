#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/reduce_probes.h"

namespace chorus::device {

template struct KernelStart<ReduceProbes>;
template struct KernelStart<MeanProbes>;

}  // namespace chorus::device
