// The CUDA side of some other build, for cuda_module_test.
#include "core/model/cuda_module.h"

extern "C" __attribute__((visibility("default"))) chorus::CudaModuleEntry chorus_cuda_module() {
  return {.interface = chorus::kCudaModuleInterface + 1, .module = nullptr};
}
