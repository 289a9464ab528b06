// On simulated thread blocks.
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/cuda/sampling_kernels.h"
#include "core/kernels/cuda/sampling_workspace.h"
#include "core/model/device_choices.h"
#include "tests/kernels/device_sampling_support.h"

namespace chorus {
namespace {

using device::HostArray;
using device::HostLaunch;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class Kernel>
void RunKernel(const device::SamplingLaunch& launch, int grid_x, int grid_y, uint32_t seed,
               const std::vector<HostArray>& arrays) {
  const HostLaunch host = {.grid_x = grid_x,
                           .grid_y = grid_y,
                           .num_threads = Kernel::kThreads,
                           .shared_bytes = Kernel::kSharedBytes,
                           .seed = seed,
                           .arrays = arrays.data(),
                           .num_arrays = static_cast<int>(arrays.size())};
  ASSERT_EQ(device::RunOnHost(host, [&] { Kernel::Run(launch, 0); }), "");
}

template <class T>
HostArray ArrayOf(const std::vector<T>& values, bool is_writable) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), is_writable};
}

}  // namespace

std::string WhyNoSamplingDevice() { return ""; }

DeviceSampling SampleOnDevice(absl::Span<const TokenChoice> choices, const StepLogits& logits,
                              uint32_t seed, bool all_kernels) {
  const int32_t vocab_size = logits.vocab_size;
  const PackedChoices packed = PackChoices(choices, logits.step_rows, vocab_size);
  const int num_rows = static_cast<int>(logits.step_rows.size());
  const int num_choices = packed.num_choices();
  DeviceSampling result;
  result.combined.assign(int64_t{num_choices} * vocab_size, kNan);
  std::vector<float> changed(int64_t{packed.num_changed_rows()} * vocab_size, kNan);
  // A byte of 0xFF everywhere is NaN.
  std::vector<uint8_t> output(packed.output_bytes(), 0xFF);
  device::SamplingLaunch launch;
  const device::SamplingSize size = {num_rows, num_choices, packed.num_changed_rows(), vocab_size};
  std::vector<uint8_t> workspace(device::PlaceWorkspace(size, nullptr, launch), 0xFF);
  device::PlaceWorkspace(size, workspace.data(), launch);
  launch.in = packed.InputsAt(packed.bytes().data());
  launch.out = packed.OutputsAt(output.data());
  launch.logits = logits.values.data();
  launch.combined = result.combined.data();
  launch.changed = changed.data();
  const std::vector<HostArray> arrays = {
      ArrayOf(logits.values, false),  ArrayOf(workspace, true), ArrayOf(packed.bytes(), false),
      ArrayOf(result.combined, true), ArrayOf(changed, true),   ArrayOf(output, true)};
  const int splits = launch.num_splits;
  RunKernel<device::RowStatisticsKernel>(launch, num_rows, splits, seed, arrays);
  if (packed.combines() || all_kernels) {
    RunKernel<device::CombineLogitsKernel>(launch, num_choices, splits, seed, arrays);
  }
  if (packed.adjusts() || all_kernels) {
    RunKernel<device::AdjustLogitsKernel>(launch, num_choices, splits, seed, arrays);
  }
  if (packed.compares() || all_kernels) {
    RunKernel<device::DivergenceKernel>(launch, num_choices, splits, seed, arrays);
  }
  RunKernel<device::ChooseTokensKernel>(launch, num_choices, 1, seed, arrays);
  result.chosen = UnpackChosen(choices, packed, output.data(), result.combined.data(), vocab_size);
  return result;
}

}  // namespace chorus
