// The elementwise kernels on a GPU, against those of the CPU: the cases of
// device_elementwise_test.cc.
#include <string>
#include <type_traits>
#include <vector>

#include <cuda_runtime_api.h>

#include "gtest/gtest.h"

#include "core/kernels/cuda/elementwise_cuda.h"
#include "tests/kernels/device_elementwise_cases.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus::device {
namespace {

using test::GpuArrays;

template <class Element>
constexpr DeviceType TypeOf() {
  return std::is_same_v<Element, BFloat16> ? DeviceType::kBFloat16 : DeviceType::kFloat16;
}

DeviceRopeArgs OnDevice(const GpuArrays& gpu, const DeviceRopeArgs& args) {
  DeviceRopeArgs on_device = args;
  on_device.qkv = gpu.At(args.qkv);
  on_device.positions = gpu.At(args.positions);
  on_device.slots = gpu.At(args.slots);
  on_device.cosine = gpu.At(args.cosine);
  on_device.sine = gpu.At(args.sine);
  on_device.q_out = gpu.At(args.q_out);
  on_device.k = gpu.At(args.k);
  on_device.v = gpu.At(args.v);
  return on_device;
}

void ExpectSuccess(cudaError_t error) {
  EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

struct GpuBackend {
  static std::string WhyAbsent() { return test::WhyNoGpu(); }

  template <class Element>
  static void AddRmsNorm(const NormArgs<Element>& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchAddRmsNorm(TypeOf<Element>(), gpu.At(args.residual), gpu.At(args.delta),
                                   gpu.At(args.weight), args.num_rows, args.size, args.epsilon,
                                   gpu.At(args.out), nullptr));
    gpu.Download();
  }

  template <class Element>
  static void RopeAndWriteKv(const DeviceRopeArgs& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchRopeAndWriteKv(TypeOf<Element>(), OnDevice(gpu, args), nullptr));
    gpu.Download();
  }

  template <class Element>
  static void MoveKv(const DeviceRopeArgs& args, const std::vector<KvMove>& moves,
                     const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchMoveKv(TypeOf<Element>(), OnDevice(gpu, args), gpu.At(moves.data()),
                               static_cast<int32_t>(moves.size()), nullptr));
    gpu.Download();
  }

  template <class Element>
  static void SiluMultiply(const SiluArgs<Element>& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchSiluMultiply(TypeOf<Element>(), gpu.At(args.gate_up), args.num_rows,
                                     args.size, gpu.At(args.out), nullptr));
    gpu.Download();
  }

  template <class Element>
  static void Embed(const RowsArgs<Element, float>& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchEmbed(TypeOf<Element>(), gpu.At(args.indexes), args.num_rows,
                              gpu.At(args.from), args.size, gpu.At(args.to), nullptr));
    gpu.Download();
  }

  template <class T>
  static void GatherRows(const RowsArgs<T, T>& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    const int32_t* const rows = gpu.At(args.indexes);
    if constexpr (std::is_same_v<T, float>) {
      ExpectSuccess(LaunchGatherFloatRows(gpu.At(args.from), rows, args.num_rows, args.size,
                                          gpu.At(args.to), nullptr));
    } else {
      ExpectSuccess(LaunchGatherRows(TypeOf<T>(), gpu.At(args.from), rows, args.num_rows, args.size,
                                     gpu.At(args.to), nullptr));
    }
    gpu.Download();
  }

  template <class Element>
  static void AddBias(const BiasArgs<Element>& args, const Arrays& arrays) {
    GpuArrays gpu(arrays);
    ExpectSuccess(LaunchAddBias(TypeOf<Element>(), gpu.At(args.x), gpu.At(args.bias), args.num_rows,
                                args.size, nullptr));
    gpu.Download();
  }
};

using Cases =
    testing::Types<ElementwiseCase<GpuBackend, BFloat16>, ElementwiseCase<GpuBackend, Float16>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Gpu, DeviceElementwiseTest, Cases);

}  // namespace
}  // namespace chorus::device
