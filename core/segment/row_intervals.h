#pragma once

#include <cstdint>
#include <vector>

#include "core/segment/attention_plan.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// The segment mask as runs of rows that share their key intervals: O(segments) in size, never
// O(length^2). The keys of row q are { k : k in one of its run's intervals and k <= q }, which
// equals SegmentMask::Allows for every q and k (fuzzed in tests).
class RowIntervals {
 public:
  struct Run {
    TokenRange rows;
    std::vector<KeyInterval> keys;  // ascending, disjoint, none empty
  };

  // `length` >= layout.length() counts generated rows too. `split_segment_columns`: the keys of
  // fused rows are cut where segment columns begin and end, and is_segment is set (needed when a
  // SegmentScaling applies); otherwise they are one interval and is_segment is false. Touching
  // intervals of one kind are merged, except a segment row's prefix and own segment: kept apart
  // even where they touch, so that a kernel that counts key blocks from an interval's begin gives a
  // segment the same bits wherever it stands, and its cached keys and values stay exact.
  static RowIntervals FromLayout(const SegmentLayout& layout, int32_t length,
                                 bool split_segment_columns);

  // Runs made elsewhere (ToRowIntervals). REQUIRES: what runs() promises.
  static RowIntervals FromRuns(std::vector<Run> runs);

  // The same keys for layers with an AttentionWindow: intervals are cut where positions jump
  // (`layout` is the one that these come from) and position_shift is set. Row q then sees, under a
  // window, { k : k in one of its run's intervals, k <= q, and the window allows the positions of
  // q and k }. An interval's begin is still the layout's, not the window's: see FromLayout on bits.
  RowIntervals CutAtPositions(const SegmentLayout& layout) const;

  // In row order; together they cover [0, length) exactly once.
  const std::vector<Run>& runs() const { return runs_; }

  // The run that holds row q, 0 <= q < length.
  const Run& RunOf(int32_t q) const;

  // Number of (q, k) pairs allowed in rows [0, length).
  int64_t CountAllowed() const;

 private:
  std::vector<Run> runs_;
};

}  // namespace chorus
