#include "core/engine/request_queue.h"

#include "absl/time/clock.h"

namespace chorus {

void RequestQueue::Push(std::unique_ptr<PendingRequest> pending) {
  absl::MutexLock lock(&mutex_);
  const Key key = {-static_cast<int64_t>(pending->request.priority), num_arrived_++};
  requests_.emplace(key, std::move(pending));
  changed_ = true;
  change_.Signal();
}

std::unique_ptr<PendingRequest> RequestQueue::PopIfFits(int64_t num_free_slots) {
  absl::MutexLock lock(&mutex_);
  if (requests_.empty()) return nullptr;
  auto head = requests_.begin();
  if (head->second->plan.num_slots > num_free_slots) return nullptr;
  std::unique_ptr<PendingRequest> pending = std::move(head->second);
  requests_.erase(head);
  return pending;
}

std::vector<std::unique_ptr<PendingRequest>> RequestQueue::TakeEnded(absl::Time now) {
  std::vector<std::unique_ptr<PendingRequest>> ended;
  absl::MutexLock lock(&mutex_);
  for (auto it = requests_.begin(); it != requests_.end();) {
    const PendingRequest& pending = *it->second;
    if (pending.cancelled->load(std::memory_order_relaxed) || pending.request.deadline <= now) {
      ended.push_back(std::move(it->second));
      it = requests_.erase(it);
    } else {
      ++it;
    }
  }
  return ended;
}

std::vector<std::unique_ptr<PendingRequest>> RequestQueue::TakeAll() {
  std::vector<std::unique_ptr<PendingRequest>> all;
  absl::MutexLock lock(&mutex_);
  for (auto& [key, pending] : requests_) all.push_back(std::move(pending));
  requests_.clear();
  return all;
}

void RequestQueue::Wake() {
  absl::MutexLock lock(&mutex_);
  changed_ = true;
  change_.Signal();
}

void RequestQueue::WaitForChange(absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (!changed_) {
    if (change_.WaitWithDeadline(&mutex_, until)) break;
  }
  changed_ = false;
}

}  // namespace chorus
