#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace chorus {

// A team of threads that run one loop body together: the compute threads of one worker.
//
// A decode step is some 150 short parallel regions, so a region must start within a microsecond:
// the team spins for a moment (kSpinIterations) before it sleeps. OpenMP was looked at: its teams
// spin per calling thread without such a bound in view, two of them on one machine slow each other
// several times, and ThreadSanitizer cannot see into libgomp. absl has no pool; torch's would pull
// torch into the kernels.
//
// ParallelFor may be called from one thread at a time (the owner's), never from inside a body.
class ThreadPool {
 public:
  // num_threads >= 1 counts the calling thread, so num_threads - 1 threads are started.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(i) for every i in [0, num_tasks), each exactly once, on the team and the caller;
  // returns when all are done. Tasks are taken in order, one at a time, so uneven ones balance.
  // Which thread runs a task is not fixed: a result must not depend on it.
  void ParallelFor(int64_t num_tasks, const std::function<void(int64_t)>& body);

 private:
  void ThreadMain();
  void RunTasks();

  // The current region. Written by the caller before `generation_` is raised, read by the team
  // after they see it raised, so plain members suffice for what does not change in a region.
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t num_tasks_ = 0;
  std::atomic<int64_t> next_task_{0};
  std::atomic<int> num_running_{0};  // team threads that have not yet left the region
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stopping_{false};

  absl::Mutex mutex_;
  // Only touched under mutex_; atomic because ThreadSanitizer cannot see into the system's absl.
  std::atomic<int> num_sleeping_{0};
  absl::CondVar wake_;

  std::vector<std::thread> threads_;
};

}  // namespace chorus
