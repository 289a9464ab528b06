#include "core/cache/slot_allocator.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"

namespace chorus {

SlotAllocator::SlotAllocator(int32_t num_slots) {
  CHECK(num_slots >= 0);
  is_taken_.resize(num_slots, false);
  num_free_ = num_slots;
  if (num_slots > 0) AddRun(0, num_slots);
}

absl::StatusOr<std::vector<int32_t>> SlotAllocator::Allocate(int32_t num_slots) {
  CHECK(num_slots >= 0);
  if (num_slots > num_free_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no room for ", num_slots, " tokens: ", num_free_, " KV slots are free"));
  }
  std::vector<int32_t> slots;
  slots.reserve(num_slots);
  while (static_cast<int32_t>(slots.size()) < num_slots) {
    const int32_t num_missing = num_slots - static_cast<int32_t>(slots.size());
    auto run = by_length_.lower_bound({num_missing, 0});
    if (run == by_length_.end()) run = std::prev(by_length_.end());
    const auto [length, begin] = *run;
    TakeFront(begin, length, std::min(length, num_missing), &slots);
  }
  return slots;
}

void SlotAllocator::Free(absl::Span<const int32_t> slots) {
  for (size_t i = 0; i < slots.size();) {
    size_t end = i + 1;
    while (end < slots.size() && slots[end] == slots[end - 1] + 1) ++end;
    Release(slots[i], slots[end - 1] + 1);
    i = end;
  }
}

bool SlotAllocator::is_free(int32_t slot) const {
  CHECK(slot >= 0 && slot < num_slots());
  return !is_taken_[slot];
}

void SlotAllocator::TakeFront(int32_t begin, int32_t length, int32_t num_taken,
                              std::vector<int32_t>* slots) {
  RemoveRun(begin, length);
  if (length > num_taken) AddRun(begin + num_taken, length - num_taken);
  num_free_ -= num_taken;
  for (int32_t slot = begin; slot < begin + num_taken; ++slot) {
    CHECK(!is_taken_[slot]);
    is_taken_[slot] = true;
    slots->push_back(slot);
  }
}

void SlotAllocator::AddRun(int32_t begin, int32_t length) {
  length_by_begin_.emplace(begin, length);
  by_length_.emplace(length, begin);
}

void SlotAllocator::RemoveRun(int32_t begin, int32_t length) {
  CHECK(length_by_begin_.erase(begin) == 1);
  CHECK(by_length_.erase({length, begin}) == 1);
}

void SlotAllocator::Release(int32_t begin, int32_t end) {
  CHECK(begin >= 0 && end <= num_slots());
  for (int32_t slot = begin; slot < end; ++slot) {
    CHECK(is_taken_[slot]);
    is_taken_[slot] = false;
  }
  num_free_ += end - begin;
  auto next = length_by_begin_.lower_bound(begin);
  if (next != length_by_begin_.end() && next->first == end) {
    const auto [next_begin, next_length] = *next;
    end = next_begin + next_length;
    RemoveRun(next_begin, next_length);
    next = length_by_begin_.lower_bound(begin);
  }
  if (next != length_by_begin_.begin()) {
    const auto [previous_begin, previous_length] = *std::prev(next);
    if (previous_begin + previous_length == begin) {
      begin = previous_begin;
      RemoveRun(previous_begin, previous_length);
    }
  }
  AddRun(begin, end - begin);
}

}  // namespace chorus
