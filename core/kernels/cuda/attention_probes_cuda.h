#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/probe_plan.h"
#include "core/segment/attention_plan.h"

namespace chorus {

// The probes of one step on a device; arrays of a ProbePlan of the layer's window, in device
// memory, as all others here.
struct CudaProbes {
  const ProbeTask* tasks = nullptr;
  int32_t num_probes = 0;
  const ProbePiece* pieces = nullptr;
  const int32_t* piece_begins = nullptr;
  const int32_t* layer_order = nullptr;
  const int32_t* head_order = nullptr;
  const SegmentScaling* scalings = nullptr;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  const float* logits = nullptr;  // [num_logits] what the layer's attention gave
  float* mass_sums = nullptr;     // [num_heads * num_units] probe by probe [num_heads, num_units]
  float* mean_mass = nullptr;     // [num_units] probe by probe
  float* mass = nullptr;          // [num_chosen] probe by probe [layers, heads, num_units]
  float* mean_logits = nullptr;   // like mass
};

// Once a layer, in order, after the layer's attention and on its stream: mass_sums, and of the
// layers and heads asked for `mass` and `mean_logits` (NaN for a unit of which the row sees no
// key). What one probe gets depends on its row, keys and units only, bit for bit.
cudaError_t LaunchReduceProbes(const CudaProbes& probes, int32_t layer, cudaStream_t stream);

// After the last layer: mean_mass.
cudaError_t LaunchMeanProbes(const CudaProbes& probes, cudaStream_t stream);

}  // namespace chorus
