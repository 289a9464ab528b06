// How attention work is divided among threads; segment_attention_simd.cc computes it.
#include <algorithm>
#include <vector>

#include "hwy/aligned_allocator.h"

#include "core/base/check.h"
#include "core/kernels/segment_attention.h"
#include "core/kernels/segment_attention_task.h"

namespace chorus {
namespace {

int32_t HeadsPerKvHead(const AttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

std::vector<AttentionTask> MakeTasks(const TilePlan& tiles, const AttentionShape& shape) {
  const int32_t heads_per_kv_head = HeadsPerKvHead(shape);
  const int32_t task_heads = std::min(heads_per_kv_head, kMaxTaskQueries);
  std::vector<AttentionTask> tasks;
  for (const Tile& tile : tiles.tiles) {
    for (int32_t kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head) {
      const int32_t head_end = (kv_head + 1) * heads_per_kv_head;
      for (int32_t head = kv_head * heads_per_kv_head; head < head_end; head += task_heads) {
        tasks.push_back({tile, kv_head, head, std::min(task_heads, head_end - head)});
      }
    }
  }
  return tasks;
}

// Computes every span into memory of the stack and merges it at once.
void RunWhole(const AttentionPlan& plan, const TilePlan& tiles, const AttentionTask& task,
              const AttentionArgs& args) {
  alignas(64) float values[kMaxTaskQueries * kMaxHeadDim];
  float max[kMaxTaskQueries], sum[kMaxTaskQueries];
  const SoftmaxState state = {max, sum, values};
  FinishAttentionTask(plan, tiles, task, args, [&](const KeySpan& span) {
    RunAttentionSpan(plan, task, args, span, state);
    return state;
  });
}

// The spans of few, long tasks, each a piece of work of its own. The result is RunWhole's, bit for
// bit: the same spans merged in the same order.
class SplitWork {
 public:
  SplitWork(const AttentionPlan& plan, const TilePlan& tiles,
            const std::vector<AttentionTask>& tasks, const AttentionArgs& args)
      : plan_(plan),
        tiles_(tiles),
        tasks_(tasks),
        args_(args),
        padded_(PaddedHeadDim(args.shape.head_dim)) {
    int64_t num_floats = 0;
    for (const AttentionTask& task : tasks) {
      first_item_.push_back(static_cast<int64_t>(items_.size()));
      for (int32_t i = task.tile.span_begin; i < task.tile.span_end; ++i) {
        items_.push_back({&task, &tiles.spans[i], num_floats});
        // max, sum, values; rounded up so that values stay aligned.
        num_floats += 2 * kMaxTaskQueries + int64_t{task.num_queries()} * padded_;
      }
    }
    memory_ = hwy::AllocateAligned<float>(std::max<int64_t>(1, num_floats));
    CHECK(memory_ != nullptr);
  }

  void Run(ThreadPool& pool) {
    pool.ParallelFor(static_cast<int64_t>(items_.size()), [&](int64_t i) {
      RunAttentionSpan(plan_, *items_[i].task, args_, *items_[i].span, StateOf(i));
    });
    pool.ParallelFor(static_cast<int64_t>(tasks_.size()), [&](int64_t t) {
      const KeySpan* first = tiles_.spans.data() + tasks_[t].tile.span_begin;
      FinishAttentionTask(plan_, tiles_, tasks_[t], args_, [&](const KeySpan& span) {
        return StateOf(first_item_[t] + (&span - first));
      });
    });
  }

 private:
  struct Item {
    const AttentionTask* task;
    const KeySpan* span;
    int64_t memory_offset;
  };

  SoftmaxState StateOf(int64_t item) const {
    float* memory = memory_.get() + items_[item].memory_offset;
    return {memory, memory + kMaxTaskQueries, memory + 2 * kMaxTaskQueries};
  }

  const AttentionPlan& plan_;
  const TilePlan& tiles_;
  const std::vector<AttentionTask>& tasks_;
  const AttentionArgs& args_;
  const int64_t padded_;
  std::vector<Item> items_;
  std::vector<int64_t> first_item_;  // [num tasks]
  hwy::AlignedFreeUniquePtr<float[]> memory_;
};

}  // namespace

TilePlan PlanCpuTiles(const AttentionPlan& plan, const AttentionShape& shape,
                      const AttentionWindow& window) {
  CHECK(shape.num_kv_heads > 0 && shape.num_heads > 0 && shape.num_heads % shape.num_kv_heads == 0);
  const int32_t task_heads = std::min(HeadsPerKvHead(shape), kMaxTaskQueries);
  return PlanTiles(
      plan, window,
      {.tile_rows = kMaxTaskQueries / task_heads, .key_block = kKeyBlock, .span_keys = kSpanKeys});
}

void SegmentAttentionCpu(const AttentionPlan& plan, const TilePlan& tiles,
                         const AttentionArgs& args, ThreadPool& pool) {
  const AttentionShape& shape = args.shape;
  CHECK(shape.head_dim > 0 && shape.head_dim <= kMaxHeadDim);
  const std::vector<AttentionTask> tasks = MakeTasks(tiles, shape);
  const int64_t num_tasks = static_cast<int64_t>(tasks.size());
  // Too few tasks to balance by themselves; this also bounds the memory of split work.
  if (pool.num_threads() > 1 && num_tasks < 4 * pool.num_threads()) {
    SplitWork(plan, tiles, tasks, args).Run(pool);
    return;
  }
  pool.ParallelFor(num_tasks, [&](int64_t i) { RunWhole(plan, tiles, tasks[i], args); });
}

}  // namespace chorus
