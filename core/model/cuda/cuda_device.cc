#include "core/model/cuda/cuda_device.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "core/kernels/cuda/cuda_kernels.h"
#include "core/model/cuda/cuda_stream.h"

namespace chorus {
namespace {

constexpr int kMinComputeMajor = 8;  // the kernels use mma and cp.async of sm_80

// Runs `body` with the device current. No exception of torch leaves; memory that is not to be had
// is RESOURCE_EXHAUSTED, everything else INTERNAL.
template <typename Body>
auto WithDevice(int32_t device_index, const Body& body) -> decltype(body()) {
  try {
    CHORUS_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device_index), "cudaSetDevice"));
    return body();
  } catch (const c10::OutOfMemoryError&) {
    return absl::ResourceExhaustedError("out of device memory");
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

class CudaMemory : public DeviceMemory {
 public:
  CudaMemory(int32_t device_index, void* data) : device_index_(device_index), data_(data) {}
  ~CudaMemory() override {
    // Nothing can be done about an error at this place, and none may leave it.
    static_cast<void>(WithDevice(device_index_, [&]() -> absl::Status {
      c10::cuda::CUDACachingAllocator::raw_delete(data_);
      return absl::OkStatus();
    }));
  }

  void* data() const override { return data_; }

 private:
  const int32_t device_index_;
  void* const data_;
};

// Bytes that torch's allocator holds and nobody uses.
int64_t CachedBytes(int32_t device_index) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(
      static_cast<c10::DeviceIndex>(device_index));
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

absl::Status NoDeviceStatus(cudaError_t error) {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  cudaGetLastError();
  if (driver == 0) {
    return absl::FailedPreconditionError(
        "no CUDA device: this machine has no NVIDIA driver (libcuda.so.1), or the container was "
        "started without its GPUs (docker run --gpus all)");
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no CUDA device: the NVIDIA driver is for CUDA ", VersionText(driver),
        ", too old for CUDA ", VersionText(runtime), ": install a newer driver"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no CUDA device: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error)));
}

}  // namespace

absl::StatusOr<std::vector<CudaDeviceInfo>> ListCudaDevices() {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) return NoDeviceStatus(error);
  if (num_devices == 0) return NoDeviceStatus(cudaErrorNoDevice);
  std::vector<CudaDeviceInfo> infos;
  for (int index = 0; index < num_devices; ++index) {
    cudaDeviceProp properties = {};
    CHORUS_RETURN_IF_ERROR(
        CudaStatus(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties"));
    CudaDeviceInfo info = {.model = properties.name,
                           .total_bytes = static_cast<int64_t>(properties.totalGlobalMem)};
    if (properties.major < kMinComputeMajor) {
      info.problem = absl::StrCat("a ", info.model, " has compute capability ", properties.major,
                                  ".", properties.minor, ": 8.0 or later is needed (A100, H100)");
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Create(int32_t device_index) {
  CHORUS_ASSIGN_OR_RETURN(const std::vector<CudaDeviceInfo> infos, ListCudaDevices());
  const auto num_devices = static_cast<int32_t>(infos.size());
  if (device_index < 0 || device_index >= num_devices) {
    return absl::OutOfRangeError(absl::StrCat("there is no cuda:", device_index,
                                              ": the last one is cuda:", num_devices - 1));
  }
  const std::string& problem = infos[static_cast<size_t>(device_index)].problem;
  if (!problem.empty()) return absl::FailedPreconditionError(problem);
  return WithDevice(device_index, [&]() -> absl::StatusOr<std::unique_ptr<CudaDevice>> {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);  // the allocator among others
    return std::unique_ptr<CudaDevice>(new CudaDevice(device_index));
  });
}

std::string CudaDevice::name() const { return absl::StrCat("cuda:", device_index_); }

absl::StatusOr<int64_t> CudaDevice::FreeBytes() const {
  return WithDevice(device_index_, [&]() -> absl::StatusOr<int64_t> {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    CHORUS_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
    return static_cast<int64_t>(free_bytes) + CachedBytes(device_index_);
  });
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> CudaDevice::Allocate(int64_t num_bytes) {
  auto memory =
      WithDevice(device_index_, [&]() -> absl::StatusOr<std::unique_ptr<DeviceMemory>> {
        // The allocator gives no pointer for 0 bytes. Its blocks begin at multiples of 512.
        void* const data = c10::cuda::CUDACachingAllocator::raw_alloc(
            static_cast<size_t>(std::max<int64_t>(num_bytes, 1)));
        return std::make_unique<CudaMemory>(device_index_, data);
      });
  if (memory.ok() || memory.status().code() != absl::StatusCode::kResourceExhausted) return memory;
  const absl::StatusOr<int64_t> free_bytes = FreeBytes();
  return absl::ResourceExhaustedError(
      absl::StrCat("out of memory on ", name(), ": ", num_bytes, " bytes were wanted, ",
                   free_bytes.value_or(0), " are free"));
}

absl::StatusOr<std::unique_ptr<DeviceStream>> CudaDevice::CreateStream() {
  CHORUS_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMemory> workspace,
                          Allocate(LinearAlgorithms::kWorkspaceBytes));
  return WithDevice(device_index_, [&]() -> absl::StatusOr<std::unique_ptr<DeviceStream>> {
    return CudaStream::Create(device_index_, &algorithms_, std::move(workspace));
  });
}

}  // namespace chorus
