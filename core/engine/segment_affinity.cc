#include "core/engine/segment_affinity.h"

#include "absl/container/flat_hash_set.h"

namespace chorus {

std::vector<int64_t> SegmentAffinity::CachedRows(const FusionPlan& plan) const {
  std::vector<int64_t> rows(num_workers_, 0);
  absl::flat_hash_set<uint64_t> counted;  // sequences share segments
  absl::MutexLock lock(&mutex_);
  for (const SequencePlan& sequence : plan.sequences) {
    for (const SegmentUse& use : sequence.uses) {
      if (!counted.insert(use.hash).second) continue;
      const auto found = entries_.find(use.hash);
      if (found != entries_.end()) rows[found->second.worker] += use.tokens.length();
    }
  }
  return rows;
}

void SegmentAffinity::Placed(const FusionPlan& plan, int32_t worker) {
  absl::MutexLock lock(&mutex_);
  for (const SequencePlan& sequence : plan.sequences) {
    for (const SegmentUse& use : sequence.uses) {
      const auto [entry, inserted] = entries_.try_emplace(use.hash);
      if (inserted) {
        entry->second.place = by_use_.insert(by_use_.end(), use.hash);
      } else {
        by_use_.splice(by_use_.end(), by_use_, entry->second.place);
      }
      entry->second.worker = worker;
    }
  }
  while (entries_.size() > max_segments_) {
    entries_.erase(by_use_.front());
    by_use_.pop_front();
  }
}

size_t SegmentAffinity::num_segments() const {
  absl::MutexLock lock(&mutex_);
  return entries_.size();
}

}  // namespace chorus
