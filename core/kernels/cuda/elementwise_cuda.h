#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/kernels/cuda/device_args.h"

namespace chorus {

// The functions of elementwise.h on a device: activations of `type`, everything else float32; all
// arrays in device memory, at multiples of 16 bytes. Each starts one kernel on `stream`.
//
// Rows that only fill up a captured graph are rows as others: token 0, position 0, and a slot that
// no row reads. Moves that fill it up go from and to that slot.

// residual += delta (not if null), then out = residual / sqrt(mean(residual^2) + epsilon) * weight,
// row by row. residual [num_rows, size] float32; delta, out [num_rows, size]; weight [size]
// float32; `size` even.
cudaError_t LaunchAddRmsNorm(DeviceType type, float* residual, const void* delta, const float* weight,
                             int32_t num_rows, int32_t size, float epsilon, void* out,
                             cudaStream_t stream);

// Rotates q and k and writes keys and values into their slots.
cudaError_t LaunchRopeAndWriteKv(DeviceType type, const DeviceRopeArgs& args, cudaStream_t stream);

// As MoveKvArgs; of `rope` shape, cosine, sine, k and v are read.
cudaError_t LaunchMoveKv(DeviceType type, const DeviceRopeArgs& rope, const KvMove* moves,
                         int32_t num_moves, cudaStream_t stream);

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]; gate_up [num_rows, 2 * size]; `size`
// even.
cudaError_t LaunchSiluMultiply(DeviceType type, const void* gate_up, int32_t num_rows, int32_t size,
                               void* out, cudaStream_t stream);

// residual[r, :] = table[token_ids[r], :]; residual [num_rows, size] float32, table [vocab_size,
// size]; `size` even.
cudaError_t LaunchEmbed(DeviceType type, const int32_t* token_ids, int32_t num_rows,
                        const void* table, int32_t size, float* residual, cudaStream_t stream);

// out[i, :] = from[rows[i], :]; from [num_rows, size], out [num_gathered, size]; `size` even.
cudaError_t LaunchGatherRows(DeviceType type, const void* from, const int32_t* rows,
                             int32_t num_gathered, int32_t size, void* out, cudaStream_t stream);
cudaError_t LaunchGatherFloatRows(const float* from, const int32_t* rows, int32_t num_gathered,
                                  int32_t size, float* out, cudaStream_t stream);

// x[r, :] += bias; x [num_rows, size], bias [size] float32; `size` even.
cudaError_t LaunchAddBias(DeviceType type, void* x, const float* bias, int32_t num_rows, int32_t size,
                          cudaStream_t stream);

}  // namespace chorus
