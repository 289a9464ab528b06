#pragma once

#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_kernels.h"

namespace chorus {

// OK for cudaSuccess, else `what` failed, with CUDA's name and text of the error:
// RESOURCE_EXHAUSTED for memory, UNAVAILABLE if the process can use the device no more, INTERNAL
// for anything else. Clears the error, so that it does not stand as the next kernel's.
absl::Status CudaStatus(cudaError_t error, const char* what);

// Which kernel a device gets for the rows of prefixes and segments: mma.sync (compute
// capability 8.0 and later), or wgmma and tensor copies (9.0).
enum class CudaAttentionKind { kAmpere, kHopper };
cudaError_t FindCudaAttentionKind(int device, CudaAttentionKind& kind);

// The kernels on one stream of one CUDA device, which can run `kind`. Used by one thread; the
// stream outlives them.
std::unique_ptr<DeviceKernels> CreateCudaKernels(int32_t device_index, CudaAttentionKind kind,
                                                 cudaStream_t stream);

}  // namespace chorus
