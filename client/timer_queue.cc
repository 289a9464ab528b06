#include "client/timer_queue.h"

#include <chrono>
#include <utility>

namespace chorus {

absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

void TimerQueue::Add(absl::Time when, std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  const bool is_earliest = entries_.empty() || when < entries_.top().when;
  entries_.push({when, num_added_++, std::move(work)});
  // Under the lock: once it is free, the owner may run this entry and destroy the queue.
  if (is_earliest) has_earlier_.Signal();
}

void TimerQueue::RunNext() { WaitForNext()(); }

std::function<void()> TimerQueue::WaitForNext() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    if (entries_.empty()) {
      has_earlier_.Wait(&mutex_);
      continue;
    }
    const absl::Duration wait = entries_.top().when - SteadyNow();
    if (wait <= absl::ZeroDuration()) break;
    has_earlier_.WaitWithTimeout(&mutex_, wait);
  }
  std::function<void()> work = entries_.top().work;
  entries_.pop();
  return work;
}

}  // namespace chorus
