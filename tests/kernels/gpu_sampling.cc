// On a GPU.
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/sampling_cuda.h"
#include "core/model/device_choices.h"
#include "tests/kernels/device_sampling_support.h"
#include "tests/kernels/gpu_arrays.h"

namespace chorus {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T>
device::HostArray ArrayOf(const std::vector<T>& values, bool is_writable) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), is_writable};
}

}  // namespace

std::string WhyNoSamplingDevice() { return test::WhyNoGpu(); }

DeviceSampling SampleOnDevice(absl::Span<const TokenChoice> choices, const StepLogits& logits,
                              uint32_t, bool all_kernels) {
  const int32_t vocab_size = logits.vocab_size;
  const PackedChoices packed = PackChoices(choices, logits.step_rows, vocab_size);
  DeviceSamplingArgs args;
  args.num_rows = static_cast<int32_t>(logits.step_rows.size());
  args.num_choices = packed.num_choices();
  args.num_changed_rows = packed.num_changed_rows();
  args.vocab_size = vocab_size;
  args.combines = packed.combines() || all_kernels;
  args.adjusts = packed.adjusts() || all_kernels;
  args.compares = packed.compares() || all_kernels;
  DeviceSampling result;
  result.combined.assign(int64_t{args.num_choices} * vocab_size, kNan);
  std::vector<float> changed(int64_t{args.num_changed_rows} * vocab_size, kNan);
  // A byte of 0xFF everywhere is NaN.
  std::vector<uint8_t> output(packed.output_bytes(), 0xFF);
  std::vector<uint8_t> workspace(CudaSamplingWorkspaceBytes(args.num_rows, args.num_choices,
                                                            args.num_changed_rows, vocab_size),
                                 0xFF);
  test::GpuArrays gpu({ArrayOf(logits.values, false), ArrayOf(workspace, true),
                       ArrayOf(packed.bytes(), false), ArrayOf(result.combined, true),
                       ArrayOf(changed, true), ArrayOf(output, true)});
  args.in = packed.InputsAt(gpu.At(packed.bytes().data()));
  args.out = packed.OutputsAt(gpu.At(output.data()));
  args.logits = gpu.At(logits.values.data());
  args.combined = gpu.At(result.combined.data());
  args.changed = changed.empty() ? nullptr : gpu.At(changed.data());
  args.workspace = gpu.At(workspace.data());
  const cudaError_t error = LaunchSampling(args, /*stream=*/nullptr);
  EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
  gpu.Download();
  result.chosen = UnpackChosen(choices, packed, output.data(), result.combined.data(), vocab_size);
  return result;
}

}  // namespace chorus
