#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace chorus {

// Hands out KV slots, of which each holds one token. A slot is free or has one owner: a segment of
// the SegmentCache, which counts who uses it, or one sequence. Owned by one worker and used by its
// thread only: no locks.
//
//   SlotAllocator allocator(1024);
//   std::vector<int32_t> slots = *allocator.Allocate(20);
//   allocator.Free(slots);
class SlotAllocator {
 public:
  // Slots are numbered [0, num_slots); num_slots >= 0.
  explicit SlotAllocator(int32_t num_slots);

  // `num_slots` >= 0 free slots: one ascending contiguous run where there is a free one that is
  // long enough (the shortest such), else pieces of the longest free runs. A slot is never lost to
  // fragmentation: whatever is free can be handed out. RESOURCE_EXHAUSTED, and nothing taken, if
  // fewer are free. O(pieces * log slots + num_slots).
  absl::StatusOr<std::vector<int32_t>> Allocate(int32_t num_slots);

  // REQUIRES: every slot is taken, each is named once. O(runs * log slots + slots).
  void Free(absl::Span<const int32_t> slots);

  bool is_free(int32_t slot) const;
  int32_t num_slots() const { return static_cast<int32_t>(is_taken_.size()); }
  int32_t num_free() const { return num_free_; }
  int32_t num_used() const { return num_slots() - num_free_; }

 private:
  void TakeFront(int32_t begin, int32_t length, int32_t num_taken, std::vector<int32_t>* slots);
  void AddRun(int32_t begin, int32_t length);
  void RemoveRun(int32_t begin, int32_t length);
  // Makes [begin, end) free, joined to the free runs that it touches.
  void Release(int32_t begin, int32_t end);

  std::vector<bool> is_taken_;  // [num_slots]
  int32_t num_free_ = 0;
  // The maximal runs of free slots, in two orders.
  std::map<int32_t, int32_t> length_by_begin_;
  std::set<std::pair<int32_t, int32_t>> by_length_;  // {length, begin}
};

}  // namespace chorus
