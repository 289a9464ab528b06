#include "core/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"

#include "core/base/check.h"

namespace chorus {
namespace {

SegmentKey KeyOf(const SequencePlan& plan, const SegmentUse& use, const CachedSegment* prefix) {
  const absl::Span<const int32_t> token_ids = plan.token_ids;
  return {.prefix = use.sees_prefix ? prefix : nullptr,
          .token_ids = token_ids.subspan(use.tokens.begin, use.tokens.length()),
          .begin_position = use.begin_position};
}

// Tokens of the prompt that stand in no segment as it was computed.
int64_t CountPrivate(const SequencePlan& plan) {
  int64_t count = plan.layout.length();
  for (const SegmentUse& use : plan.uses) {
    if (use.moved_by == 0) count -= use.tokens.length();
  }
  return count;
}

}  // namespace

Sequence::Sequence(const SequencePlan* plan, const std::vector<int32_t>* generated,
                   const Options& options)
    : plan_(*plan),
      generated_(*generated),
      row_intervals_(RowIntervals::FromLayout(plan_.layout, options.max_length,
                                              options.split_segment_columns)),
      windowed_intervals_(options.has_windows
                              ? std::optional(row_intervals_.CutAtPositions(plan_.layout))
                              : std::nullopt) {}

int32_t Sequence::num_tokens() const {
  return prompt_length() + static_cast<int32_t>(generated_.size());
}

int32_t Sequence::TokenAt(int32_t index) const {
  CHECK(index >= 0 && index < num_tokens());
  return index < prompt_length() ? plan_.token_ids[index] : generated_[index - prompt_length()];
}

KvNeed Sequence::NeedOf(const SegmentCache& cache, absl::flat_hash_set<uint64_t>* counted) const {
  KvNeed need;
  need.num_slots = CountPrivate(plan_) + static_cast<int64_t>(generated_.size());
  const CachedSegment* prefix = nullptr;
  for (size_t i = 0; i < plan_.uses.size(); ++i) {
    const SegmentUse& use = plan_.uses[i];
    // What follows a prefix that is not there is not there either.
    const bool can_be_there = !use.sees_prefix || prefix != nullptr;
    CachedSegment* const segment =
        can_be_there ? cache.Find(KeyOf(plan_, use, prefix)) : nullptr;
    const bool is_prefix = plan_.layout.prefix_length() > 0 && i == 0;
    if (is_prefix) prefix = segment;
    if (!counted->insert(use.hash).second) continue;
    if (segment == nullptr) {
      need.num_slots += use.tokens.length();
    } else if (cache.is_idle(*segment)) {
      need.num_idle_slots += use.tokens.length();
    }
  }
  return need;
}

bool Sequence::TakePins(SegmentCache* cache) {
  for (const SegmentUse& use : plan_.uses) {
    const CachedSegment* prefix = use.sees_prefix ? pins_.front().get() : nullptr;
    absl::StatusOr<SegmentPin> pin = cache->Pin(KeyOf(plan_, use, prefix));
    if (!pin.ok()) return false;
    pins_.push_back(*std::move(pin));
    needs_moves_ = needs_moves_ || use.moved_by != 0;
  }
  return true;
}

bool Sequence::TakeKv(SegmentCache* cache) {
  CHECK(pins_.empty() && slots_.empty());
  if (!TakePins(cache)) {
    ReleaseKv(cache);
    return false;
  }
  const int64_t num_private = CountPrivate(plan_) + static_cast<int64_t>(generated_.size());
  auto own = cache->Allocate(static_cast<int32_t>(num_private));
  if (!own.ok()) {
    ReleaseKv(cache);
    return false;
  }
  private_slots_ = *std::move(own);
  slots_.assign(num_tokens(), -1);
  for (size_t i = 0; i < pins_.size(); ++i) {
    const SegmentUse& use = plan_.uses[i];
    if (use.moved_by != 0) continue;
    const std::vector<int32_t>& from = pins_[i]->slots();
    std::copy(from.begin(), from.end(), slots_.begin() + use.tokens.begin);
  }
  auto next = private_slots_.begin();
  for (int32_t& slot : slots_) {
    if (slot < 0) slot = *next++;
  }
  CHECK(next == private_slots_.end());
  return true;
}

bool Sequence::GrowKv(SegmentCache* cache) {
  while (static_cast<int32_t>(slots_.size()) < num_tokens()) {
    auto slot = cache->Allocate(1);
    if (!slot.ok()) return false;
    slots_.push_back(slot->front());
    private_slots_.push_back(slot->front());
  }
  return true;
}

void Sequence::ReleaseKv(SegmentCache* cache) {
  cache->Free(private_slots_);
  private_slots_.clear();
  slots_.clear();
  while (!pins_.empty()) pins_.pop_back();  // segments before their prefix
  needs_moves_ = false;
}

void Sequence::SetMoved() {
  needs_moves_ = false;
  for (size_t i = 0; i < pins_.size(); ++i) {
    if (plan_.uses[i].moved_by != 0) pins_[i].Release();
  }
}

}  // namespace chorus
