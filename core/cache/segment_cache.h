#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/cache/slot_allocator.h"

namespace chorus {

class SegmentCache;

// What the keys and values of a run of tokens depend on, and so what makes two runs the same: the
// tokens, the position of the first, and what they see before themselves (null: nothing).
struct SegmentKey {
  const class CachedSegment* prefix = nullptr;
  absl::Span<const int32_t> token_ids;
  int32_t begin_position = 0;
};

// A run of tokens whose keys and values are computed once and shared: a prefix, or a segment behind
// one. It fills up from its front, on behalf of whichever request comes first, and never changes
// once it is filled. Owned by a SegmentCache; worker thread only.
class CachedSegment {
 public:
  // Token i stands at position begin_position() + i and lies in slots()[i].
  const std::vector<int32_t>& token_ids() const { return token_ids_; }
  int32_t num_tokens() const { return static_cast<int32_t>(token_ids_.size()); }
  int32_t begin_position() const { return begin_position_; }
  const CachedSegment* prefix() const { return prefix_; }
  const std::vector<int32_t>& slots() const { return slots_; }
  SegmentKey key() const { return {prefix_, token_ids_, begin_position_}; }

  // Keys and values of tokens [0, num_filled) are in their slots.
  int32_t num_filled() const { return num_filled_; }
  bool filled() const { return num_filled_ == num_tokens(); }
  // Tokens [num_filled(), end) have been computed. REQUIRES: num_filled() <= end <= num_tokens().
  void FillUpTo(int32_t end);

 private:
  friend class SegmentCache;
  CachedSegment(const SegmentKey& key, CachedSegment* prefix, std::vector<int32_t> slots)
      : token_ids_(key.token_ids.begin(), key.token_ids.end()),
        begin_position_(key.begin_position),
        prefix_(prefix),
        slots_(std::move(slots)) {}

  const std::vector<int32_t> token_ids_;
  const int32_t begin_position_;
  CachedSegment* const prefix_;
  const std::vector<int32_t> slots_;
  int32_t num_filled_ = 0;
  int32_t num_pins_ = 0;
  int32_t num_followers_ = 0;  // cached segments whose prefix this is
  std::list<CachedSegment*>::iterator idle_place_;  // valid while idle: unpinned
};

// Keeps a segment alive and in its slots. Movable; empty by default.
class SegmentPin {
 public:
  SegmentPin() = default;
  SegmentPin(SegmentPin&& other) noexcept { *this = std::move(other); }
  SegmentPin& operator=(SegmentPin&& other) noexcept;
  ~SegmentPin() { Release(); }

  CachedSegment* get() const { return segment_; }
  CachedSegment* operator->() const { return segment_; }
  void Release();

 private:
  friend class SegmentCache;
  SegmentPin(SegmentCache* cache, CachedSegment* segment) : cache_(cache), segment_(segment) {}
  SegmentCache* cache_ = nullptr;
  CachedSegment* segment_ = nullptr;
};

// The KV space of one worker: private slots of sequences, and segments that requests share by
// content. A segment that nobody pins any more stays until its slots are needed, least recently
// used first, so that a later request with the same segment need not compute it again. What is
// pinned is never evicted; neither is a prefix before the segments behind it. Exact: a segment is
// found by comparing tokens, position and prefix, never by a hash alone.
//
// One worker's thread only. Pins must be released before the cache goes, segments before their
// prefix.
class SegmentCache {
 public:
  // At most `max_idle_slots` slots are kept by idle segments; 0 keeps none.
  SegmentCache(int32_t num_slots, int32_t max_idle_slots);
  ~SegmentCache();
  SegmentCache(const SegmentCache&) = delete;
  SegmentCache& operator=(const SegmentCache&) = delete;

  // The segment, or null. Does not count as use.
  CachedSegment* Find(const SegmentKey& key) const;
  bool is_idle(const CachedSegment& segment) const { return segment.num_pins_ == 0; }

  // The segment, made (and not filled) if it is not there. Idle segments make room for it.
  // RESOURCE_EXHAUSTED, and nothing changed, if that is not enough. REQUIRES: key.prefix is pinned.
  absl::StatusOr<SegmentPin> Pin(const SegmentKey& key);

  // Private slots. As Pin, idle segments make room.
  absl::StatusOr<std::vector<int32_t>> Allocate(int32_t num_slots);
  void Free(absl::Span<const int32_t> slots) { allocator_.Free(slots); }

  // Slots that Pin and Allocate can still hand out: free ones and those of idle segments.
  int32_t num_available() const { return allocator_.num_free() + num_idle_slots_; }
  int32_t num_slots() const { return allocator_.num_slots(); }
  // Slots that something in use holds.
  int32_t num_in_use() const { return num_slots() - num_available(); }
  int32_t num_idle_slots() const { return num_idle_slots_; }
  int32_t num_segments() const { return static_cast<int32_t>(segments_.size()); }
  int64_t num_evictions() const { return num_evictions_; }

 private:
  friend class SegmentPin;
  struct Hash {
    using is_transparent = void;
    size_t operator()(const SegmentKey& key) const;
    size_t operator()(const std::unique_ptr<CachedSegment>& segment) const;
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const SegmentKey& a, const SegmentKey& b) const;
    bool operator()(const std::unique_ptr<CachedSegment>& a, const SegmentKey& b) const;
    bool operator()(const std::unique_ptr<CachedSegment>& a,
                    const std::unique_ptr<CachedSegment>& b) const;
  };

  bool MakeRoom(int32_t num_slots);
  void AddPin(CachedSegment* segment);
  void Unpin(CachedSegment* segment);
  void EvictOldest();
  void Drop(CachedSegment* segment);

  const int32_t max_idle_slots_;
  SlotAllocator allocator_;
  absl::flat_hash_set<std::unique_ptr<CachedSegment>, Hash, Equal> segments_;
  // Least recently used first; a prefix stands behind all its idle followers.
  std::list<CachedSegment*> idle_;
  int32_t num_idle_slots_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace chorus
