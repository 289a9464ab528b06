#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"

#include "core/cache/segment_cache.h"
#include "core/engine/fusion_strategy.h"
#include "core/segment/row_intervals.h"

namespace chorus {

// KV slots that something needs of a cache.
struct KvNeed {
  int64_t num_slots = 0;       // to be handed out
  int64_t num_idle_slots = 0;  // of idle segments that it will use: no longer to be had for others
};

// One token list of a running request: its prompt and the tokens generated after it. With KV space
// it holds pins on the cached segments that it uses and private slots for the rest; without, it can
// take the space (again) at any time. Owned by its RunningRequest; worker thread only.
class Sequence {
 public:
  // `plan` and `generated` (shared by all sequences of a generation) must outlive the sequence.
  struct Options {
    int32_t max_length = 0;  // tokens that it can ever hold, prompt and generated
    bool split_segment_columns = false;
    bool has_windows = false;  // the model has layers with an AttentionWindow
  };
  Sequence(const SequencePlan* plan, const std::vector<int32_t>* generated, const Options& options);

  // Prompt and generated tokens so far.
  int32_t num_tokens() const;
  int32_t prompt_length() const { return plan_.layout.length(); }

  // Of token `index`, 0 <= index < num_tokens().
  int32_t TokenAt(int32_t index) const;
  int32_t PositionAt(int32_t index) const { return plan_.layout.PositionOf(index); }
  int32_t SlotAt(int32_t index) const { return slots_[index]; }

  // Slots of its tokens from the first on; at least the prompt's while it has KV space.
  const std::vector<int32_t>& slots() const { return slots_; }
  const SequencePlan& plan() const { return plan_; }
  // Of every row that the sequence can ever hold.
  const RowIntervals& row_intervals() const { return row_intervals_; }
  // The same rows' intervals cut at positions; null if the model has no layer with a window.
  const RowIntervals* windowed_intervals() const {
    return windowed_intervals_.has_value() ? &*windowed_intervals_ : nullptr;
  }

  // The segment of plan().uses[i]; null once a moved one has been let go.
  CachedSegment* segment(size_t i) const { return pins_[i].get(); }

  // What TakeKv would need of the cache, but for segments whose SegmentUse::hash is in `counted`
  // already; its own are added.
  KvNeed NeedOf(const SegmentCache& cache, absl::flat_hash_set<uint64_t>* counted) const;
  // Pins its segments and takes private slots for its other tokens, generated ones included. False,
  // and nothing taken, if there is no room. REQUIRES: it has no KV space.
  bool TakeKv(SegmentCache* cache);
  // Makes sure that the last token has a slot; false if there is none to be had.
  bool GrowKv(SegmentCache* cache);
  void ReleaseKv(SegmentCache* cache);

  // Whether segments still have to be moved before its own rows can run: see SegmentUse::moved_by.
  bool needs_moves() const { return needs_moves_; }
  // The moves have been made: lets the segments go that were moved.
  void SetMoved();

 private:
  bool TakePins(SegmentCache* cache);

  const SequencePlan& plan_;
  const std::vector<int32_t>& generated_;
  const RowIntervals row_intervals_;
  const std::optional<RowIntervals> windowed_intervals_;
  std::vector<SegmentPin> pins_;        // one a use
  std::vector<int32_t> slots_;          // by token
  std::vector<int32_t> private_slots_;  // those of slots_ that no pinned segment holds
  bool needs_moves_ = false;
};

}  // namespace chorus
