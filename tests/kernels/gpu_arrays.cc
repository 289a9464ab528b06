#include "tests/kernels/gpu_arrays.h"

#include <algorithm>

#include <cuda_runtime_api.h>

#include "gtest/gtest.h"

namespace chorus::test {
namespace {

void ExpectSuccess(cudaError_t error) {
  EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

}  // namespace

std::string WhyNoGpu() {
  int num_devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&num_devices);
  if (error != cudaSuccess) {
    return std::string("no GPU here: ") + cudaGetErrorString(error);
  }
  return num_devices > 0 ? "" : "no GPU here: the driver knows no device";
}

GpuArrays::GpuArrays(const std::vector<device::HostArray>& arrays) {
  for (const device::HostArray& host : arrays) {
    Copy copy{host};
    // At least a word, so that an empty array has an address of its own.
    ExpectSuccess(cudaMalloc(&copy.on_device, std::max<int64_t>(host.size, 16)));
    ExpectSuccess(cudaMemcpy(copy.on_device, host.data, host.size, cudaMemcpyHostToDevice));
    copies_.push_back(copy);
  }
}

GpuArrays::~GpuArrays() {
  for (const Copy& copy : copies_) ExpectSuccess(cudaFree(copy.on_device));
}

void* GpuArrays::Find(const void* host) const {
  if (host == nullptr) return nullptr;
  for (const Copy& copy : copies_) {
    if (copy.host.data == host) return copy.on_device;
  }
  ADD_FAILURE() << "an array that was not named";
  return nullptr;
}

void GpuArrays::Download() {
  ExpectSuccess(cudaDeviceSynchronize());
  for (const Copy& copy : copies_) {
    if (!copy.host.is_writable) continue;
    ExpectSuccess(cudaMemcpy(const_cast<void*>(copy.host.data), copy.on_device, copy.host.size,
                             cudaMemcpyDeviceToHost));
  }
}

}  // namespace chorus::test
