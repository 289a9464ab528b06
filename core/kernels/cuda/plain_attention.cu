#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/plain_attention.h"

namespace chorus::device {

template struct KernelStart<PlainAttention<BFloat16>>;
template struct KernelStart<PlainAttention<Float16>>;

}  // namespace chorus::device
