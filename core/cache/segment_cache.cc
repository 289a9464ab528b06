#include "core/cache/segment_cache.h"

#include <algorithm>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/status_macros.h"

namespace chorus {

void CachedSegment::FillUpTo(int32_t end) {
  CHECK(end >= num_filled_ && end <= num_tokens());
  num_filled_ = end;
}

SegmentPin& SegmentPin::operator=(SegmentPin&& other) noexcept {
  if (this == &other) return *this;
  Release();
  cache_ = std::exchange(other.cache_, nullptr);
  segment_ = std::exchange(other.segment_, nullptr);
  return *this;
}

void SegmentPin::Release() {
  if (segment_ != nullptr) cache_->Unpin(std::exchange(segment_, nullptr));
}

size_t SegmentCache::Hash::operator()(const SegmentKey& key) const {
  return absl::HashOf(key.prefix, key.token_ids, key.begin_position);
}

size_t SegmentCache::Hash::operator()(const std::unique_ptr<CachedSegment>& segment) const {
  return (*this)(segment->key());
}

bool SegmentCache::Equal::operator()(const SegmentKey& a, const SegmentKey& b) const {
  return a.prefix == b.prefix && a.begin_position == b.begin_position && a.token_ids == b.token_ids;
}

bool SegmentCache::Equal::operator()(const std::unique_ptr<CachedSegment>& a,
                                     const SegmentKey& b) const {
  return (*this)(a->key(), b);
}

bool SegmentCache::Equal::operator()(const std::unique_ptr<CachedSegment>& a,
                                     const std::unique_ptr<CachedSegment>& b) const {
  return (*this)(a->key(), b->key());
}

SegmentCache::SegmentCache(int32_t num_slots, int32_t max_idle_slots)
    : max_idle_slots_(max_idle_slots), allocator_(num_slots) {
  CHECK(max_idle_slots >= 0);
}

SegmentCache::~SegmentCache() {
  while (!idle_.empty()) EvictOldest();
  CHECK(segments_.empty());
}

CachedSegment* SegmentCache::Find(const SegmentKey& key) const {
  const auto found = segments_.find(key);
  return found == segments_.end() ? nullptr : found->get();
}

absl::StatusOr<SegmentPin> SegmentCache::Pin(const SegmentKey& key) {
  CachedSegment* segment = Find(key);
  if (segment == nullptr) {
    CHECK(!key.token_ids.empty());
    CHORUS_ASSIGN_OR_RETURN(std::vector<int32_t> slots,
                            Allocate(static_cast<int32_t>(key.token_ids.size())));
    // The cache owns every segment that can be a prefix, so it may change it.
    auto* const prefix = const_cast<CachedSegment*>(key.prefix);
    segment = new CachedSegment(key, prefix, std::move(slots));
    segments_.insert(std::unique_ptr<CachedSegment>(segment));
    if (prefix != nullptr) ++prefix->num_followers_;
    ++segment->num_pins_;
  } else {
    AddPin(segment);
  }
  CHECK(key.prefix == nullptr || key.prefix->num_pins_ > 0);
  return SegmentPin(this, segment);
}

absl::StatusOr<std::vector<int32_t>> SegmentCache::Allocate(int32_t num_slots) {
  if (!MakeRoom(num_slots)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no room for ", num_slots, " tokens: ", num_available(), " KV slots are not in use"));
  }
  return allocator_.Allocate(num_slots);
}

bool SegmentCache::MakeRoom(int32_t num_slots) {
  if (num_slots > num_available()) return false;
  while (allocator_.num_free() < num_slots) EvictOldest();
  return true;
}

void SegmentCache::AddPin(CachedSegment* segment) {
  if (segment->num_pins_++ > 0) return;
  idle_.erase(segment->idle_place_);
  num_idle_slots_ -= segment->num_tokens();
}

void SegmentCache::Unpin(CachedSegment* segment) {
  CHECK(segment->num_pins_ > 0);
  if (--segment->num_pins_ > 0) return;
  if (!segment->filled() && segment->num_followers_ == 0) return Drop(segment);
  CHECK(segment->filled());  // what follows a prefix is released before it and was dropped with it
  segment->idle_place_ = idle_.insert(idle_.end(), segment);
  num_idle_slots_ += segment->num_tokens();
  // A prefix that others have left idle is used by its followers too.
  CachedSegment* const prefix = segment->prefix_;
  if (prefix != nullptr && prefix->num_pins_ == 0) {
    idle_.splice(idle_.end(), idle_, prefix->idle_place_);
  }
  while (num_idle_slots_ > max_idle_slots_) EvictOldest();
}

void SegmentCache::EvictOldest() {
  CHECK(!idle_.empty());
  ++num_evictions_;
  CachedSegment* const oldest = idle_.front();
  idle_.pop_front();
  num_idle_slots_ -= oldest->num_tokens();
  Drop(oldest);
}

void SegmentCache::Drop(CachedSegment* segment) {
  CHECK(segment->num_pins_ == 0 && segment->num_followers_ == 0);
  allocator_.Free(segment->slots_);
  if (segment->prefix_ != nullptr) --segment->prefix_->num_followers_;
  segments_.erase(segments_.find(segment->key()));
}

}  // namespace chorus
