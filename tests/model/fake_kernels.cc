// cuda_kernels.cc without the kernels: all of them start but one.
#include <type_traits>

#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/cuda/start_kernel.h"

namespace chorus::device {

template <class Kernel>
cudaError_t KernelStart<Kernel>::Start(const typename Kernel::Launch&, int32_t, int32_t,
                                       cudaStream_t) {
  return std::is_same_v<Kernel, SiluMultiplyKernel<BFloat16>> ? cudaErrorInvalidConfiguration
                                                              : cudaSuccess;
}
template <class Element, int kHeadDim>
cudaError_t HopperStart<Element, kHeadDim>::Start(const AttentionLaunch<Element>&,
                                                  const DeviceTiles&, int32_t, cudaStream_t) {
  return cudaSuccess;
}

}  // namespace chorus::device

#include "core/kernels/cuda/cuda_kernels.cc"
