#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/engine/step_plan.h"
#include "core/kernels/attention_statistics.h"
#include "core/model/model_config.h"

namespace chorus {

// The probes of one step: hands the kernel of each layer its statistics, and turns what it found
// into results. Lives for one step; memory is that of the statistics and of the results asked for.
class AttentionProbes {
 public:
  // Borrows the plan's probes. REQUIRES: CheckStepPlan has passed.
  AttentionProbes(const StepPlan& plan, const ModelConfig& config);

  // Between these two calls, once for every layer in order, the kernel fills the statistics.
  std::span<AttentionStatistics> BeginLayer(int32_t layer);
  void EndLayer();

  // One result a probe, in the plan's order. Call after the last layer.
  std::vector<AttentionProbeResult> TakeResults();

  bool empty() const { return statistics_.empty(); }

 private:
  const std::vector<AttentionProbe>& probes_;
  const int32_t num_layers_;
  const int32_t num_heads_;
  std::vector<size_t> order_;                    // probe of each of `statistics_`
  std::vector<AttentionStatistics> statistics_;  // ascending by row
  std::vector<AttentionProbeResult> results_;    // in the plan's order
};

}  // namespace chorus
