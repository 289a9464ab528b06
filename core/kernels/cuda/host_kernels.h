#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_host.h"
#include "core/kernels/cuda/device_kernels.h"

namespace chorus {

// The kernel sources on simulated thread blocks, checked for races and bounds; what is wrong is
// INTERNAL with the checker's words.
class HostKernels : public DeviceKernels {
 public:
  using Work = std::function<absl::Status()>;
  // Does the work now, or keeps it.
  using Submit = std::function<absl::Status(Work)>;
  // The memory that kernels may touch when they run.
  using Arrays = std::function<std::vector<device::HostArray>()>;

  HostKernels(Submit submit, Arrays arrays)
      : submit_(std::move(submit)), arrays_(std::move(arrays)) {}

  bool TakesShape(const AttentionShape& shape) const override;
  TileShape OwnTileShape(const AttentionShape& shape) const override;
  TileShape FusedTileShape(const AttentionShape& shape) const override;
  int64_t AttentionWorkspaceFloats(const AttentionShape& shape, int32_t num_spans) const override;
  absl::Status SegmentAttention(const DeviceAttentionArgs& args) override;
  bool TakesPlainShape(const AttentionShape& shape) const override;
  TileShape PlainTileShape() const override;
  absl::Status PlainAttention(const DeviceAttentionArgs& args, const DeviceTiles& tiles) override;
  absl::Status ReduceProbes(const DeviceProbes& probes, int32_t layer) override;
  absl::Status MeanProbes(const DeviceProbes& probes) override;
  absl::Status Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows, const void* table,
                     int32_t size, float* residual) override;
  absl::Status AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                       int32_t size) override;
  absl::Status GatherRows(DeviceType type, const void* from, const int32_t* rows,
                          int32_t num_gathered, int32_t size, void* out) override;
  absl::Status GatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                               int32_t size, float* out) override;
  absl::Status AddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                          int32_t num_rows, int32_t size, float epsilon, void* out) override;
  absl::Status RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) override;
  absl::Status MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                      int32_t num_moves) override;
  absl::Status SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                            void* out) override;
  int64_t SamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices, int32_t num_changed_rows,
                                 int32_t vocab_size) const override;
  absl::Status Sample(const DeviceSamplingArgs& args) override;

 private:
  template <class Kernel, class Launch>
  absl::Status Start(const Launch& launch, int grid_x, int grid_y = 1);
  template <class Element, int kHeadDim>
  absl::Status StartAttention(const DeviceAttentionArgs& args);
  template <class Element>
  absl::Status StartPlain(const DeviceAttentionArgs& args, const DeviceTiles& tiles);

  const Submit submit_;
  const Arrays arrays_;
};

}  // namespace chorus
