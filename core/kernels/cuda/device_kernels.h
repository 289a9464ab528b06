#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// The kernels of one device, started in order on one of its streams: CUDA's, or the same sources on
// simulated thread blocks. Pointers are device memory, arrays begin at multiples of 16 bytes;
// activations and weights are of `type`, everything else float32. Nothing here allocates or waits,
// so all of it can be captured in a graph. A row's results depend on that row alone, bit for bit.
// Rows that only fill up a captured graph are rows as others: token 0, position 0, and a slot that
// no row reads. Moves that fill it up go from and to that slot.
// Errors: INTERNAL if a kernel cannot be started.
class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;

  // How `own` and `fused` tiles of SegmentAttention are to be cut, which starts at most three
  // kernels. REQUIRES of both: SegmentAttentionTakes(shape), no layer window.
  virtual TileShape OwnTileShape(const AttentionShape& shape) const = 0;
  virtual TileShape FusedTileShape(const AttentionShape& shape) const = 0;
  virtual absl::Status SegmentAttention(const DeviceAttentionArgs& args) = 0;

  // What SegmentAttention does not take, and layers with a window: slow, keys one after the other.
  // All rows of the step are in `tiles`, cut by PlanTiles for the window and kPlainTileShape; a
  // tile without rows is padding. `own`, `fused` and `workspace` of `args` are not read. Logits are
  // given for rows of both kinds, and nothing else if args.out is null, so that they can be had of
  // rows that another kernel computes. REQUIRES: PlainAttentionTakes(args.shape).
  virtual absl::Status PlainAttention(const DeviceAttentionArgs& args,
                                      const DeviceTiles& tiles) = 0;

  // Once a layer, in order, after the layer's attention: mass_sums, and of the layers and heads
  // asked for `mass` and `mean_logits` (NaN for a unit of which the row sees no key).
  virtual absl::Status ReduceProbes(const DeviceProbes& probes, int32_t layer) = 0;
  // After the last layer: mean_mass.
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

  // Combines logits, adjusts them and chooses tokens, in two to five kernels. A choice's result
  // depends on its own rows and parameters and on vocab_size only, bit for bit.
  virtual absl::Status Sample(const DeviceSamplingArgs& args) = 0;
};

}  // namespace chorus
