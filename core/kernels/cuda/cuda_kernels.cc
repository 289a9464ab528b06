#include "core/kernels/cuda/cuda_kernels.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/launched_kernels.h"
#include "core/kernels/cuda/start_kernel.h"

namespace chorus {
namespace {

struct CudaStarter {
  int32_t device_index;
  CudaAttentionKind kind;
  cudaStream_t stream;

  template <class Kernel>
  absl::Status Start(const char* what, const typename Kernel::Launch& launch, int32_t grid_x,
                     int32_t grid_y) const {
    CHORUS_RETURN_IF_ERROR(MakeCurrent());
    return CudaStatus(device::KernelStart<Kernel>::Start(launch, grid_x, grid_y, stream), what);
  }

  template <class Element, int kHeadDim>
  absl::Status StartHopper(const char* what, const DeviceAttentionArgs& args) const {
    CHORUS_RETURN_IF_ERROR(MakeCurrent());
    return CudaStatus(
        device::HopperStart<Element, kHeadDim>::Start(device::LaunchOf<Element>(args, args.own),
                                                      args.own, args.num_slots, stream),
        what);
  }

  bool is_hopper() const { return kind == CudaAttentionKind::kHopper; }
  TileShape FusedTileShape(const AttentionShape& shape) const {
    return device::FusedTileShapeOf(shape);
  }

  // A kernel can only be started while its stream's device is the thread's current one.
  absl::Status MakeCurrent() const {
    return CudaStatus(cudaSetDevice(device_index), "cudaSetDevice");
  }
};

// Errors after which, as driver_types.h says, the process can do nothing more on the device.
bool LosesDevice(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  const std::string text =
      absl::StrCat(what, " failed: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error));
  if (LosesDevice(error)) {
    return absl::UnavailableError(
        absl::StrCat("the GPU is lost to this process until the server is started again: ", text));
  }
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

cudaError_t FindCudaAttentionKind(int device, CudaAttentionKind& kind) {
  int major = 0, minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  const bool is_hopper = major == 9 && minor == 0;  // sm_90a runs there and nowhere else
  kind = is_hopper ? CudaAttentionKind::kHopper : CudaAttentionKind::kAmpere;
  return error;
}

std::unique_ptr<DeviceKernels> CreateCudaKernels(int32_t device_index, CudaAttentionKind kind,
                                                 cudaStream_t stream) {
  return std::make_unique<LaunchedKernels<CudaStarter>>(CudaStarter{device_index, kind, stream});
}

}  // namespace chorus
