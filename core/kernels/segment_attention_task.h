#pragma once

#include <cstdint>
#include <functional>

#include "core/kernels/segment_attention.h"
#include "core/kernels/tile_plan.h"

namespace chorus {

// Keys are taken in blocks of 64, and blocks in spans of 1,024, both counted from the begin of
// their interval: so that a row adds in one order, whatever stands beside it. Spans are the unit
// in which one long row is shared among threads.
inline constexpr int32_t kKeyBlock = 64;
inline constexpr int32_t kSpanKeys = 1024;

// Queries (row, head) of one task: they share the keys and values that were made ready for use.
inline constexpr int32_t kMaxTaskQueries = 64;

// Unnormalised softmax of some queries over some keys, float32:
//   max[i] = max_j logit_j, sum[i] = sum_j exp(logit_j - max[i]), values[i] = sum_j exp(...) v_j
// No key: max = -infinity, sum = 0, values = 0. Points into memory of its user.
struct SoftmaxState {
  float* max = nullptr;     // [num_queries]
  float* sum = nullptr;     // [num_queries]
  float* values = nullptr;  // [num_queries][padded head_dim]
};

// The rows of a tile times heads [head_begin, head_begin + num_heads), which read one kv head.
// Query i is row i / num_heads, head i % num_heads. Internal to SegmentAttentionCpu.
struct AttentionTask {
  Tile tile;
  int32_t kv_head = 0;
  int32_t head_begin = 0;
  int32_t num_heads = 0;

  int32_t num_queries() const { return (tile.row_end - tile.row_begin) * num_heads; }
  // Logical index of a row's own token.
  int32_t QueryIndex(int32_t row) const { return tile.query_begin + (row - tile.row_begin); }
  // RoPE position of a row's own token.
  int32_t Position(int32_t row) const { return tile.position_begin + (row - tile.row_begin); }
};

// Values of a query are padded to whole vectors of every target.
inline int32_t PaddedHeadDim(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }

// state = the softmax of the task's queries over one span of its tile.
void RunAttentionSpan(const AttentionPlan& plan, const AttentionTask& task,
                      const AttentionArgs& args, const KeySpan& span, const SoftmaxState& state);

// Gives the state of one of the tile's spans, valid until the next call.
using SpanState = std::function<SoftmaxState(const KeySpan& span)>;

// Merges the states of the task's spans in order and writes the task's outputs.
void FinishAttentionTask(const AttentionPlan& plan, const TilePlan& tiles,
                         const AttentionTask& task, const AttentionArgs& args,
                         const SpanState& span_state);

}  // namespace chorus
