#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace chorus {

// The time since some fixed moment. It never jumps, as the calendar's may.
absl::Time SteadyNow();

// Work for one thread, each piece at a time of its own. Any thread adds, the owner runs: what only
// that work touches needs no lock. As many entries as were added and did not run.
//
// Why not a library: Asio would be a dependency for a heap and a wait; grpc::Alarm runs its
// callbacks on gRPC's threads, and waits for nobody when its owner is destroyed.
class TimerQueue {
 public:
  TimerQueue() = default;
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Entries of the same time run in the order in which they were added.
  void Add(absl::Time when, std::function<void()> work) ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until the earliest entry is due, and runs it. REQUIRES: there is one, or another thread
  // will add one.
  void RunNext() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    absl::Time when;
    uint64_t order = 0;
    std::function<void()> work;

    bool operator>(const Entry& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };

  std::function<void()> WaitForNext() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  absl::CondVar has_earlier_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> entries_ ABSL_GUARDED_BY(mutex_);
  uint64_t num_added_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace chorus
