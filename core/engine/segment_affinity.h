#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

#include "core/engine/fusion_strategy.h"

namespace chorus {

// Which worker was last given which segment: a guess at what each worker's segment cache holds, made
// where requests are placed so that no worker is asked. Bounded; forgets the longest unused.
// Thread-safe.
class SegmentAffinity {
 public:
  SegmentAffinity(int32_t num_workers, size_t max_segments)
      : num_workers_(num_workers), max_segments_(max_segments) {}

  // Rows of `plan` that each worker probably need not compute, [num_workers].
  std::vector<int64_t> CachedRows(const FusionPlan& plan) const;
  void Placed(const FusionPlan& plan, int32_t worker);

  size_t num_segments() const;  // remembered

 private:
  struct Entry {
    int32_t worker = 0;
    std::list<uint64_t>::iterator place;
  };

  const int32_t num_workers_;
  const size_t max_segments_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);  // by SegmentUse::hash
  std::list<uint64_t> by_use_ ABSL_GUARDED_BY(mutex_);                    // longest unused first
};

}  // namespace chorus
