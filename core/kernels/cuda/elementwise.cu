#include "core/kernels/cuda/elementwise_cuda.h"
#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/cuda/launch.cuh"
#include "core/kernels/cuda/launch_of.h"

namespace chorus {

using device::WithType;

cudaError_t LaunchAddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                             int32_t num_rows, int32_t size, float epsilon, void* out,
                             cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::AddRmsNormKernel<Element>;
    const typename Kernel::Launch launch = {residual, static_cast<const Element*>(delta),
                                            weight,   static_cast<Element*>(out),
                                            size,     epsilon};
    return device::Start<Kernel>(launch, dim3(num_rows), stream);
  });
}

cudaError_t LaunchRopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args, cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::RopeAndWriteKvKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(args.qkv),
                                            args.positions,
                                            args.slots,
                                            args.cosine,
                                            args.sine,
                                            static_cast<Element*>(args.q_out),
                                            static_cast<Element*>(args.k),
                                            static_cast<Element*>(args.v),
                                            args.shape.num_heads,
                                            args.shape.num_kv_heads,
                                            args.shape.head_dim};
    const int num_blocks = Kernel::NumBlocks(args.shape.num_heads, args.shape.num_kv_heads,
                                             args.shape.head_dim);
    return device::Start<Kernel>(launch, dim3(args.num_rows, num_blocks), stream);
  });
}

cudaError_t LaunchMoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                         int32_t num_moves, cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::MoveKvKernel<Element>;
    const typename Kernel::Launch launch = {moves,
                                            rope.cosine,
                                            rope.sine,
                                            static_cast<Element*>(rope.k),
                                            static_cast<Element*>(rope.v),
                                            rope.shape.num_kv_heads,
                                            rope.shape.head_dim};
    return device::Start<Kernel>(launch, dim3(num_moves), stream);
  });
}

cudaError_t LaunchSiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                               void* out, cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::SiluMultiplyKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(gate_up),
                                            static_cast<Element*>(out), size};
    return device::Start<Kernel>(launch, dim3(num_rows, Kernel::NumBlocks(size)), stream);
  });
}

cudaError_t LaunchEmbed(DeviceType type, const int32_t* token_ids, int32_t num_rows,
                        const void* table, int32_t size, float* residual, cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::EmbedKernel<Element>;
    const typename Kernel::Launch launch = {token_ids, static_cast<const Element*>(table), residual,
                                            size};
    return device::Start<Kernel>(launch, dim3(num_rows), stream);
  });
}

cudaError_t LaunchGatherRows(DeviceType type, const void* from, const int32_t* rows,
                             int32_t num_gathered, int32_t size, void* out, cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::GatherRowsKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<const Element*>(from), rows,
                                            static_cast<Element*>(out), size};
    return device::Start<Kernel>(launch, dim3(num_gathered), stream);
  });
}

cudaError_t LaunchGatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                                  int32_t size, float* out, cudaStream_t stream) {
  using Kernel = device::GatherRowsKernel<float>;
  const typename Kernel::Launch launch = {from, rows, out, size};
  return device::Start<Kernel>(launch, dim3(num_gathered), stream);
}

cudaError_t LaunchAddBias(DeviceType type, void* x, const float* bias, int32_t num_rows, int32_t size,
                          cudaStream_t stream) {
  return WithType(type, [&](auto element) {
    using Element = decltype(element);
    using Kernel = device::AddBiasKernel<Element>;
    const typename Kernel::Launch launch = {static_cast<Element*>(x), bias, size};
    return device::Start<Kernel>(launch, dim3(num_rows), stream);
  });
}

}  // namespace chorus
