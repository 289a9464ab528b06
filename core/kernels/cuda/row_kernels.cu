#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/row_kernels.h"
#include "core/kernels/cuda/row_kernels_cuda.h"

namespace chorus {
namespace {

template <class Element>
cudaError_t StartEmbed(const void* table, const int32_t* token_ids, int32_t num_rows, int32_t size,
                       float* residual, cudaStream_t stream) {
  using Kernel = device::EmbedKernel<Element>;
  const typename Kernel::Launch launch = {static_cast<const Element*>(table), token_ids, residual,
                                          size};
  return device::Start<Kernel>(launch, dim3(num_rows), stream);
}

template <class Element>
cudaError_t StartAddBias(void* x, const float* bias, int32_t num_rows, int32_t size,
                         cudaStream_t stream) {
  using Kernel = device::AddBiasKernel<Element>;
  const typename Kernel::Launch launch = {static_cast<Element*>(x), bias, size};
  return device::Start<Kernel>(launch, dim3(num_rows), stream);
}

}  // namespace

cudaError_t LaunchEmbed(DeviceType type, const void* table, const int32_t* token_ids,
                        int32_t num_rows, int32_t size, float* residual, cudaStream_t stream) {
  const auto start = type == DeviceType::kBFloat16 ? StartEmbed<device::BFloat16>
                                                   : StartEmbed<device::Float16>;
  return start(table, token_ids, num_rows, size, residual, stream);
}

cudaError_t LaunchAddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                          int32_t size, cudaStream_t stream) {
  const auto start = type == DeviceType::kBFloat16 ? StartAddBias<device::BFloat16>
                                                   : StartAddBias<device::Float16>;
  return start(x, bias, num_rows, size, stream);
}

cudaError_t LaunchGatherRows(const void* from, const int32_t* rows, int32_t num_rows,
                             int32_t row_bytes, void* to, cudaStream_t stream) {
  const device::GatherRowsKernel::Launch launch = {
      static_cast<const uint32_t*>(from), rows, static_cast<uint32_t*>(to), row_bytes / 4};
  return device::Start<device::GatherRowsKernel>(launch, dim3(num_rows), stream);
}

}  // namespace chorus
