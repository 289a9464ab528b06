#include "core/base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/base/check.h"

namespace chorus {
namespace {

// About 50 microseconds: longer than the gaps between the regions of one step, far shorter than
// the gap between requests.
constexpr int kSpinIterations = 2000;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  CHECK(num_threads >= 1);
  threads_.reserve(num_threads - 1);
  for (int i = 1; i < num_threads; ++i) threads_.emplace_back([this] { ThreadMain(); });
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::ParallelFor(int64_t num_tasks, const std::function<void(int64_t)>& body) {
  if (num_tasks <= 1 || threads_.empty()) {
    for (int64_t i = 0; i < num_tasks; ++i) body(i);
    return;
  }
  body_ = &body;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  num_running_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
  {
    // Under the lock, so that no thread can miss the raise between its last look and its sleep.
    absl::MutexLock lock(&mutex_);
    generation_.fetch_add(1, std::memory_order_release);
    if (num_sleeping_ > 0) wake_.SignalAll();
  }
  RunTasks();
  // The tail of a region is at most one task long: yield now and then in case the machine has
  // fewer free cores than the team has threads.
  for (int spins = 1; num_running_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins % kSpinIterations == 0) {
      std::this_thread::yield();
    } else {
      Pause();
    }
  }
}

void ThreadPool::RunTasks() {
  for (;;) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= num_tasks_) return;
    (*body_)(task);
  }
}

void ThreadPool::ThreadMain() {
  uint64_t seen = 0;
  for (;;) {
    for (int i = 0; i < kSpinIterations && generation_.load(std::memory_order_acquire) == seen; ++i) {
      Pause();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      absl::MutexLock lock(&mutex_);
      ++num_sleeping_;
      while (generation_.load(std::memory_order_acquire) == seen) wake_.Wait(&mutex_);
      --num_sleeping_;
    }
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_acquire)) return;
    RunTasks();
    num_running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace chorus
