#pragma once

#include <cstdint>

#include "core/base/thread_pool.h"
#include "core/kernels/segment_attention.h"
#include "core/segment/attention_plan.h"

namespace chorus {

// out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + epsilon) * weight. All [num_rows, size] contiguous
// float32; in place allowed. (Zhang and Sennrich, 2019)
void RmsNorm(const float* x, const float* weight, int32_t num_rows, int32_t size, float epsilon,
             float* out, ThreadPool& pool);

// As RmsNorm after residual += delta (both [num_rows, size]).
void AddRmsNorm(float* residual, const float* delta, const float* weight, int32_t num_rows,
                int32_t size, float epsilon, float* out, ThreadPool& pool);

// Rotary embedding in the rotate-half form over q and k, then k and v into their slots.
//   qkv [num_rows, (num_heads + 2 num_kv_heads) * head_dim]: q heads, k heads, v heads
//   q_out [num_rows, num_heads, head_dim] rotated queries
//   cosine, sine [max_positions, head_dim / 2] float32
//   positions, slots [num_rows]; distinct slots, or equal rows for equal slots
struct RopeArgs {
  AttentionShape shape;
  const float* qkv = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* slots = nullptr;
  int32_t num_rows = 0;
  const float* cosine = nullptr;
  const float* sine = nullptr;
  float* q_out = nullptr;
  KvView kv;
};
void RopeAndWriteKv(const RopeArgs& args, ThreadPool& pool);

// Makes the moves of one layer: values are copied, keys turned in float32 by `distance` positions,
// k(p + d) = R(d) k(p), and rounded to the KV type again.
//   cosine, sine [max_positions, head_dim / 2] float32, by distance
// REQUIRES: as AttentionPlan::moves says; slots in range.
struct MoveKvArgs {
  AttentionShape shape;
  const KvMove* moves = nullptr;
  int64_t num_moves = 0;
  const float* cosine = nullptr;
  const float* sine = nullptr;
  KvView kv;
};
void MoveKv(const MoveKvArgs& args, ThreadPool& pool);

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i]; gate_up [num_rows, 2 * size].
void SiluMultiply(const float* gate_up, int32_t num_rows, int32_t size, float* out, ThreadPool& pool);

}  // namespace chorus
