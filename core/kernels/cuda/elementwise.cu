#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/cuda/launch.cuh"

namespace chorus::device {

template struct KernelStart<EmbedKernel<BFloat16>>;
template struct KernelStart<EmbedKernel<Float16>>;
template struct KernelStart<AddBiasKernel<BFloat16>>;
template struct KernelStart<AddBiasKernel<Float16>>;
template struct KernelStart<GatherRowsKernel<BFloat16>>;
template struct KernelStart<GatherRowsKernel<Float16>>;
template struct KernelStart<GatherRowsKernel<float>>;
template struct KernelStart<AddRmsNormKernel<BFloat16>>;
template struct KernelStart<AddRmsNormKernel<Float16>>;
template struct KernelStart<RopeAndWriteKvKernel<BFloat16>>;
template struct KernelStart<RopeAndWriteKvKernel<Float16>>;
template struct KernelStart<MoveKvKernel<BFloat16>>;
template struct KernelStart<MoveKvKernel<Float16>>;
template struct KernelStart<SiluMultiplyKernel<BFloat16>>;
template struct KernelStart<SiluMultiplyKernel<Float16>>;

}  // namespace chorus::device
