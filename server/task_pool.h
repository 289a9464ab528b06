#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace chorus {

// A few threads that run independent tasks in order of arrival: what takes too long for a gRPC
// reaction. (ThreadPool in core/base is another thing: a team that runs one loop together.)
// Thread-safe. absl has no pool; gRPC's own threads must not be held up.
class TaskPool {
 public:
  // REQUIRES: num_threads >= 1, max_waiting >= 1.
  TaskPool(int32_t num_threads, int32_t max_waiting);
  // Runs what waits, then joins.
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False, and the task is not run, if max_waiting tasks wait already. `task` must not throw.
  bool TryAdd(std::function<void()> task);
  // RESOURCE_EXHAUSTED, for a caller whose task was not taken.
  static absl::Status FullError();

 private:
  void ThreadMain();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty();
  }

  const size_t max_waiting_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace chorus
