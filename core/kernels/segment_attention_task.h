#pragma once

#include <cstdint>
#include <functional>

#include "core/kernels/segment_attention.h"

namespace chorus {

// Keys are taken in blocks of 64, and blocks in chunks of 1,024, both counted from the begin of
// their interval: so that a row adds in one order, whatever stands beside it. Chunks are the unit
// in which one long row is shared among threads.
inline constexpr int32_t kKeyBlock = 64;
inline constexpr int32_t kChunkKeys = 1024;

// Queries (row, head) of one task: they share the keys and values that were made ready for use.
inline constexpr int32_t kMaxTaskQueries = 64;

// Keys [begin, end) of one interval, at most kChunkKeys of them.
struct KeyChunk {
  int32_t begin = 0;
  int32_t end = 0;
  bool is_scaled = false;  // segment columns under a SegmentScaling: a softmax of their own
  int32_t position_shift = 0;  // of its interval; only for layers with a window
};

// Unnormalised softmax of some queries over some keys, float32:
//   max[i] = max_j logit_j, sum[i] = sum_j exp(logit_j - max[i]), values[i] = sum_j exp(...) v_j
// No key: max = -infinity, sum = 0, values = 0. Points into memory of its user.
struct SoftmaxState {
  float* max = nullptr;     // [num_queries]
  float* sum = nullptr;     // [num_queries]
  float* values = nullptr;  // [num_queries][padded head_dim]
};

// Rows [row_begin, row_end) of a run times heads [head_begin, head_begin + num_heads), which read
// one kv head. Query i is row i / num_heads, head i % num_heads. Internal to SegmentAttentionCpu.
struct AttentionTask {
  const AttentionRun* run = nullptr;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t kv_head = 0;
  int32_t head_begin = 0;
  int32_t num_heads = 0;

  int32_t num_queries() const { return (row_end - row_begin) * num_heads; }
  // Logical index of a row's own token.
  int32_t QueryIndex(int32_t row) const { return run->query_begin + (row - run->row_begin); }
  // RoPE position of a row's own token.
  int32_t Position(int32_t row) const { return run->position_begin + (row - run->row_begin); }
};

// Values of a query are padded to whole vectors of every target.
inline int32_t PaddedHeadDim(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Calls visit(KeyChunk) for the chunks that the task's last row sees, in ascending order. Under a
// window, from the first block that its first row sees on: later rows see no key before that one.
template <typename Visit>
void ForEachChunk(const AttentionPlan& plan, const AttentionTask& task,
                  const AttentionWindow& window, const Visit& visit) {
  const AttentionRun& run = *task.run;
  const bool is_full = window.is_full();
  const int32_t visible_end = task.QueryIndex(task.row_end - 1) + 1;
  const int32_t first_position = is_full ? 0 : window.FirstPosition(task.Position(task.row_begin));
  const int32_t interval_end = is_full ? run.interval_end : run.windowed_end;
  for (int32_t i = is_full ? run.interval_begin : run.windowed_begin; i < interval_end; ++i) {
    const KeyInterval& interval = plan.intervals[i];
    const int32_t end = interval.end < visible_end ? interval.end : visible_end;
    int32_t begin = interval.begin;
    int32_t grid_end = begin + kChunkKeys;
    if (!is_full) {
      const int32_t hidden = first_position - interval.position_shift - begin;
      if (hidden > 0) {
        grid_end += hidden / kChunkKeys * kChunkKeys;
        begin += hidden / kKeyBlock * kKeyBlock;
      }
    }
    for (; begin < end; begin = grid_end, grid_end += kChunkKeys) {
      visit(KeyChunk{begin, grid_end < end ? grid_end : end,
                     run.scaling >= 0 && interval.is_segment, interval.position_shift});
    }
  }
}

// state = the softmax of the task's queries over one chunk of keys.
void RunAttentionChunk(const AttentionPlan& plan, const AttentionTask& task,
                       const AttentionArgs& args, const KeyChunk& chunk, const SoftmaxState& state);

// Gives the state of the i-th chunk of a task, valid until the next call.
using ChunkState = std::function<SoftmaxState(int64_t i, const KeyChunk& chunk)>;

// Merges the chunks' states in order and writes the task's outputs.
void FinishAttentionTask(const AttentionPlan& plan, const AttentionTask& task,
                         const AttentionArgs& args, const ChunkState& chunk_state);

}  // namespace chorus
