#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// The kernels of one device, started in order on one of its streams: CUDA's, or the same sources on
// simulated thread blocks. Pointers are device memory, arrays begin at multiples of 16 bytes;
// activations and weights are of `type`, everything else float32. Nothing here allocates or waits,
// so all of it can be captured in a graph. A row's results depend on that row alone, bit for bit.
// Errors: INTERNAL if a kernel cannot be started.
class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;

  // Whether SegmentAttention takes this shape.
  virtual bool TakesShape(const AttentionShape& shape) const = 0;
  // How its `own` and `fused` tiles are to be cut. REQUIRES: TakesShape(shape).
  virtual TileShape OwnTileShape(const AttentionShape& shape) const = 0;
  virtual TileShape FusedTileShape(const AttentionShape& shape) const = 0;
  virtual int64_t AttentionWorkspaceFloats(const AttentionShape& shape,
                                           int32_t num_spans) const = 0;
  virtual absl::Status SegmentAttention(const DeviceAttentionArgs& args) = 0;

  // What SegmentAttention does not take, and layers with a window: any even head_dim up to 256. All
  // rows of the step are in `tiles`, cut by PlanTiles for the window; `own`, `fused` and
  // `workspace` of `args` are not read. If args.out is null only logits are given.
  virtual bool TakesPlainShape(const AttentionShape& shape) const = 0;
  virtual TileShape PlainTileShape() const = 0;
  virtual absl::Status PlainAttention(const DeviceAttentionArgs& args,
                                      const DeviceTiles& tiles) = 0;

  // Once a layer, in order, after the layer's attention; and once after the last layer.
  virtual absl::Status ReduceProbes(const DeviceProbes& probes, int32_t layer) = 0;
  virtual absl::Status MeanProbes(const DeviceProbes& probes) = 0;

  // residual[r, :] = table[token_ids[r], :]; table [*, size]; residual [num_rows, size] float32;
  // `size` even.
  virtual absl::Status Embed(DeviceType type, const int32_t* token_ids, int32_t num_rows,
                             const void* table, int32_t size, float* residual) = 0;
  // x[r, :] += bias; x [num_rows, size]; bias [size] float32; `size` even.
  virtual absl::Status AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                               int32_t size) = 0;
  // out[i, :] = from[rows[i], :]; out [num_gathered, size], apart from `from`; `size` even.
  virtual absl::Status GatherRows(DeviceType type, const void* from, const int32_t* rows,
                                  int32_t num_gathered, int32_t size, void* out) = 0;
  virtual absl::Status GatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                                       int32_t size, float* out) = 0;

  // residual += delta (not if null), then out = residual / sqrt(mean(residual^2) + epsilon) *
  // weight, row by row. residual [num_rows, size]; delta, out [num_rows, size]; weight [size]
  // float32; `size` even.
  virtual absl::Status AddRmsNorm(DeviceType type, float* residual, const void* delta,
                                  const float* weight, int32_t num_rows, int32_t size,
                                  float epsilon, void* out) = 0;
  virtual absl::Status RopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args) = 0;
  // Of `rope` shape, cosine, sine, k and v are read.
  virtual absl::Status MoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                              int32_t num_moves) = 0;
  // out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]; gate_up [num_rows, 2 * size]; `size`
  // even.
  virtual absl::Status SiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows,
                                    int32_t size, void* out) = 0;

  // Combines logits, adjusts them and chooses tokens.
  virtual int64_t SamplingWorkspaceBytes(int32_t num_rows, int32_t num_choices,
                                         int32_t num_changed_rows, int32_t vocab_size) const = 0;
  virtual absl::Status Sample(const DeviceSamplingArgs& args) = 0;
};

}  // namespace chorus
