#pragma once

#include <cstdint>
#include <span>

#include "core/base/thread_pool.h"
#include "core/kernels/attention_statistics.h"
#include "core/kernels/tile_plan.h"
#include "core/segment/attention_plan.h"
#include "core/segment/attention_window.h"

namespace chorus {

enum class KvType { kFloat32, kBFloat16 };

// The largest head_dim that the CPU kernels take: their scratch stands on the stack.
inline constexpr int32_t kMaxHeadDim = 256;

// Keys and values of one layer: k and v are [num_slots, num_kv_heads, head_dim], contiguous.
struct KvView {
  KvType type = KvType::kFloat32;
  void* k = nullptr;
  void* v = nullptr;
  int32_t num_slots = 0;
};

struct AttentionShape {
  int32_t num_heads =
      0;  // a multiple of num_kv_heads; head h reads kv head h / (num_heads / num_kv_heads)
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;        // 1..kMaxHeadDim
  float softmax_scale = 0.0f;  // usually 1 / sqrt(head_dim)
};

// One layer's attention over a ragged batch.
struct AttentionArgs {
  AttentionShape shape;
  const float* q = nullptr;      // [num_rows, num_heads, head_dim], RoPE applied
  KvView kv;                     // already holds the keys and values of the step's own rows
  float* out = nullptr;          // [num_rows, num_heads, head_dim]
  float* log_sum_exp = nullptr;  // [num_rows, num_heads] natural log, or null; -infinity for a row
                                 // that attends to nothing (its output is zero)
  // The layer's window. Not full: the runs' windowed intervals are read instead of the others.
  AttentionWindow window;
  std::span<AttentionStatistics> statistics;  // ascending by row, and filled; empty: none wanted
};

// The oracle: naive, row by row, accumulates in double. Never optimised.
void SegmentAttentionReference(const AttentionPlan& plan, const AttentionArgs& args);

// How SegmentAttentionCpu cuts a step's work for the layers of one window.
TilePlan PlanCpuTiles(const AttentionPlan& plan, const AttentionShape& shape,
                      const AttentionWindow& window);

// Streams over key blocks with an online softmax; no L x L mask, memory O(rows). A row's result
// depends on its own interval list, position and slots only, bit for bit: not on how rows are split
// into runs, tiles or threads. Blocks are counted from an interval's begin under a window too;
// those that no row sees any of are not read.
// REQUIRES: tiles == PlanCpuTiles(plan, args.shape, args.window).
void SegmentAttentionCpu(const AttentionPlan& plan, const TilePlan& tiles,
                         const AttentionArgs& args, ThreadPool& pool);

}  // namespace chorus
