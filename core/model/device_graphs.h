#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "core/model/device_buffer.h"
#include "core/model/device_model.h"
#include "core/model/device_step.h"

namespace chorus {

// Passes over the layers for decode steps, recorded once for sizes in buckets and started as a
// whole: a step of few rows is some hundred kernels, each shorter than its start. A step is padded
// to the smallest bucket that holds it, which changes no row's bits. Has memory of its own, since
// what is recorded keeps its pointers.
class DeviceGraphs {
 public:
  // Borrows all.
  DeviceGraphs(Device& device, const DeviceModel& model, const ModelConfig& config,
               const StepTraits& traits, const DeviceKv& kv)
      : model_(model),
        config_(config),
        traits_(traits),
        kv_(kv),
        step_(device),
        activations_(device),
        workspace_(device) {}

  // Records graphs for up to `max_rows` rows; `progress` may be null.
  absl::Status Record(int32_t max_rows, int64_t num_slots,
                      const std::function<void(int done, int total)>& progress,
                      DeviceStream& stream);

  // Runs `step`, padded, if a graph holds it; false, and nothing is done, if none does. The final
  // norms of its rows then stand in normed().
  absl::StatusOr<bool> Run(DeviceStep& step, DeviceStream& stream);
  const char* normed() const { return activations().normed; }
  // Memory that is free after Run: [max rows, hidden_size].
  char* delta() const { return activations().delta; }

 private:
  struct Recorded {
    StepBucket bucket;
    std::unique_ptr<DeviceGraph> graph;
  };
  DeviceActivations activations() const;
  DeviceForwardArgs ArgsOf(const DeviceStep& step) const;
  absl::Status Reserve(const std::vector<StepBucket>& buckets, int64_t num_slots);

  const DeviceModel& model_;
  const ModelConfig& config_;
  const StepTraits& traits_;
  const DeviceKv kv_;
  DeviceBuffer step_, activations_, workspace_;
  int32_t max_rows_ = 0;
  int64_t max_table_entries_ = 0;
  std::vector<Recorded> recorded_;  // by rows, then by spans
};

}  // namespace chorus
