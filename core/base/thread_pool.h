#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
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

  // At least `bytes` of memory, aligned to 64, for what the owner computes next; kept between calls
  // so that a step allocates nothing. Valid until the next call; contents are lost.
  void* Scratch(size_t bytes);

 private:
  // The present region in one word, so that a thread joins it exactly if it is still open: its
  // number, whether it is open, and how many threads of the team are in it. The caller closes it
  // when no task is left and waits for those that joined only: a thread that sleeps through a
  // region, because the machine has fewer free cores than the team has threads, stalls nobody.
  static constexpr uint64_t kOneThread = 1;
  static constexpr uint64_t kThreads = (uint64_t{1} << 31) - 1;
  static constexpr uint64_t kOpen = uint64_t{1} << 31;
  static constexpr int kNumberShift = 32;

  void ThreadMain();
  void RunTasks();
  // Makes a new region known, open or not, and wakes the team.
  void Announce(uint64_t open);
  // Joins the region if it is open.
  bool TryJoin();

  std::atomic<uint64_t> region_{0};
  // Written by the caller before the region opens, read by those that joined it: plain members
  // suffice for what does not change in a region.
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t num_tasks_ = 0;
  std::atomic<int64_t> next_task_{0};
  std::atomic<bool> stopping_{false};

  struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, FreeMemory> scratch_;
  size_t scratch_bytes_ = 0;

  absl::Mutex mutex_;
  // Only touched under mutex_; atomic because ThreadSanitizer cannot see into the system's absl.
  std::atomic<int> num_sleeping_{0};
  absl::CondVar wake_;

  std::vector<std::thread> threads_;
};

}  // namespace chorus
