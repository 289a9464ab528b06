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
  // Borrows both. REQUIRES: CheckStepPlan has passed.
  AttentionProbes(const StepPlan& plan, const ModelConfig& config);

  // Between these two calls, once for every layer in order, the kernel fills the statistics.
  std::span<AttentionStatistics> BeginLayer(int32_t layer);
  void EndLayer(int32_t layer);

  // One result a probe, in the plan's order. Call after the last layer.
  std::vector<AttentionProbeResult> TakeResults();

  bool empty() const { return probes_.empty(); }

 private:
  // Layers that see the same keys share statistics.
  struct WindowStatistics {
    AttentionWindow window;
    std::vector<AttentionStatistics> statistics;  // ascending by row
  };
  std::vector<AttentionStatistics>& StatisticsOf(int32_t layer);

  const StepPlan& plan_;
  const std::vector<AttentionProbe>& probes_;
  const ModelConfig& config_;
  std::vector<size_t> order_;                  // probe of each of a window's statistics
  std::vector<WindowStatistics> windows_;      // filled as layers ask for them
  std::vector<AttentionProbeResult> results_;  // in the plan's order
};

}  // namespace chorus
