// The elementwise device kernels' own source on the host back end, against those of the CPU.
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/elementwise_kernels.h"
#include "tests/kernels/device_elementwise_cases.h"

namespace chorus::device {
namespace {

struct HostBackend {
  static std::string WhyAbsent() { return ""; }

  template <class Element>
  static void AddRmsNorm(const NormArgs<Element>& args, const Arrays& arrays) {
    Run<AddRmsNormKernel<Element>>(
        {args.residual, args.delta, args.weight, args.out, args.size, args.epsilon}, args.num_rows,
        arrays);
  }

  template <class Element>
  static void RopeAndWriteKv(const DeviceRopeArgs& args, const Arrays& arrays) {
    using Kernel = RopeAndWriteKvKernel<Element>;
    const AttentionShape& shape = args.shape;
    Run<Kernel>(
        {static_cast<const Element*>(args.qkv), args.positions, args.slots, args.cosine, args.sine,
         static_cast<Element*>(args.q_out), static_cast<Element*>(args.k),
         static_cast<Element*>(args.v), shape.num_heads, shape.num_kv_heads, shape.head_dim},
        args.num_rows, arrays,
        Kernel::NumBlocks(shape.num_heads, shape.num_kv_heads, shape.head_dim));
  }

  template <class Element>
  static void MoveKv(const DeviceRopeArgs& args, const std::vector<KvMove>& moves,
                     const Arrays& arrays) {
    Run<MoveKvKernel<Element>>(
        {moves.data(), args.cosine, args.sine, static_cast<Element*>(args.k),
         static_cast<Element*>(args.v), args.shape.num_kv_heads, args.shape.head_dim},
        static_cast<int>(moves.size()), arrays);
  }

  template <class Element>
  static void SiluMultiply(const SiluArgs<Element>& args, const Arrays& arrays) {
    using Kernel = SiluMultiplyKernel<Element>;
    Run<Kernel>({args.gate_up, args.out, args.size}, args.num_rows, arrays,
                Kernel::NumBlocks(args.size));
  }

  template <class Element>
  static void Embed(const RowsArgs<Element, float>& args, const Arrays& arrays) {
    Run<EmbedKernel<Element>>({args.indexes, args.from, args.to, args.size}, args.num_rows, arrays);
  }

  template <class T>
  static void GatherRows(const RowsArgs<T, T>& args, const Arrays& arrays) {
    Run<GatherRowsKernel<T>>({args.from, args.indexes, args.to, args.size}, args.num_rows, arrays);
  }

  template <class Element>
  static void AddBias(const BiasArgs<Element>& args, const Arrays& arrays) {
    Run<AddBiasKernel<Element>>({args.x, args.bias, args.size}, args.num_rows, arrays);
  }

 private:
  template <class Kernel>
  static void Run(const typename Kernel::Launch& launch, int grid_x, const Arrays& arrays,
                  int grid_y = 1) {
    const HostLaunch host = {.grid_x = grid_x,
                             .grid_y = grid_y,
                             .num_threads = Kernel::kThreads,
                             .shared_bytes = Kernel::kSharedBytes,
                             .arrays = arrays.data(),
                             .num_arrays = static_cast<int>(arrays.size())};
    ASSERT_EQ(RunOnHost(host, [&] { Kernel::Run(launch, 0); }), "");
  }
};

using Cases =
    testing::Types<ElementwiseCase<HostBackend, BFloat16>, ElementwiseCase<HostBackend, Float16>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Host, DeviceElementwiseTest, Cases);

}  // namespace
}  // namespace chorus::device
