#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/sampling_types.h"

namespace chorus {

// The choices of one step, all of it in device memory; arrays begin at multiples of 16 bytes.
// core/model/device_choices.h packs `in` and reads `out`.
struct CudaSamplingArgs {
  device::ChoiceInputs in;
  device::ChoiceOutputs out;
  const float* logits = nullptr;  // [num_rows, vocab_size]
  int32_t num_rows = 0;
  int32_t num_choices = 0;
  int32_t num_changed_rows = 0;
  int32_t vocab_size = 0;  // 1 to device::kMaxVocabSize
  // [num_choices, vocab_size]: the combined rows, where the rule is not kNone or they are wanted.
  float* combined = nullptr;
  float* changed = nullptr;   // [num_changed_rows, vocab_size]
  void* workspace = nullptr;  // CudaSamplingWorkspaceBytes of them
  // Which kernels some choice needs. To start one that none needs changes no result.
  bool combines = true;
  bool adjusts = true;
  bool compares = true;
};

int64_t CudaSamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices, int32_t num_changed_rows,
                                   int32_t vocab_size);

// Combines, adjusts and chooses, in two to five kernels on `stream`. A choice's result depends on
// its own rows and parameters and on vocab_size only, bit for bit. No allocation and no waiting, so
// it can be captured in a graph.
cudaError_t LaunchSampling(const CudaSamplingArgs& args, cudaStream_t stream);

}  // namespace chorus
