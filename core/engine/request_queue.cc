#include "core/engine/request_queue.h"

#include "absl/time/clock.h"

namespace chorus {

void RequestQueue::Push(std::unique_ptr<PendingRequest> pending) {
  absl::MutexLock lock(&mutex_);
  pending->urgency = {pending->is_background(),
                      pending->submitted - pending->request.priority * priority_ageing_,
                      num_arrived_++};
  const Urgency urgency = pending->urgency;
  requests_.emplace(urgency, std::move(pending));
  changed_ = true;
  change_.Signal();
}

void RequestQueue::Return(std::unique_ptr<PendingRequest> pending) {
  absl::MutexLock lock(&mutex_);
  const Urgency urgency = pending->urgency;
  requests_.emplace(urgency, std::move(pending));
}

std::optional<Urgency> RequestQueue::HeadUrgency() const {
  absl::MutexLock lock(&mutex_);
  if (requests_.empty()) return std::nullopt;
  return requests_.begin()->first;
}

std::unique_ptr<PendingRequest> RequestQueue::Pop() {
  absl::MutexLock lock(&mutex_);
  if (requests_.empty()) return nullptr;
  std::unique_ptr<PendingRequest> pending = std::move(requests_.begin()->second);
  requests_.erase(requests_.begin());
  return pending;
}

std::vector<std::unique_ptr<PendingRequest>> RequestQueue::TakeEnded(absl::Time now,
                                                                     absl::Time oldest) {
  std::vector<std::unique_ptr<PendingRequest>> ended;
  absl::MutexLock lock(&mutex_);
  for (auto it = requests_.begin(); it != requests_.end();) {
    const PendingRequest& pending = *it->second;
    if (pending.cancelled->load(std::memory_order_relaxed) || pending.request.deadline <= now ||
        pending.submitted < oldest) {
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
  for (auto& [urgency, pending] : requests_) all.push_back(std::move(pending));
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
