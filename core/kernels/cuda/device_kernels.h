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

  // residual[r, :] = table[token_ids[r], :]; table [*, size]; residual [num_rows, size] float32;
  // `size` even.
  virtual absl::Status Embed(DeviceType type, const void* table, const int32_t* token_ids,
                             int32_t num_rows, int32_t size, float* residual) = 0;
  // x[r, :] += bias; x [num_rows, size]; bias [size] float32; `size` even.
  virtual absl::Status AddBias(DeviceType type, void* x, const float* bias, int32_t num_rows,
                               int32_t size) = 0;
  // to[i, :] = from[rows[i], :], rows of `row_bytes`, a multiple of 4; `to` is apart from `from`.
  virtual absl::Status GatherRows(const void* from, const int32_t* rows, int32_t num_rows,
                                  int32_t row_bytes, void* to) = 0;

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
};

}  // namespace chorus
