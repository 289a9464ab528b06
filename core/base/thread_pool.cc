#include "core/base/thread_pool.h"

#include <new>

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
  stopping_.store(true, std::memory_order_relaxed);
  Announce(/*open=*/0);
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
  Announce(kOpen);
  RunTasks();
  region_.fetch_and(~kOpen, std::memory_order_acq_rel);
  // The tail of a region is at most one task long: yield now and then in case the machine has
  // fewer free cores than the team has threads.
  for (int spins = 1; (region_.load(std::memory_order_acquire) & kThreads) != 0; ++spins) {
    if (spins % kSpinIterations == 0) {
      std::this_thread::yield();
    } else {
      Pause();
    }
  }
}

void* ThreadPool::Scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    constexpr size_t kAlignment = 64;
    scratch_.reset();
    scratch_bytes_ = 0;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    scratch_.reset(std::aligned_alloc(kAlignment, rounded));
    if (scratch_ == nullptr) throw std::bad_alloc();
    scratch_bytes_ = rounded;
  }
  return scratch_.get();
}

// Only between regions, when no thread of the team is in one.
void ThreadPool::Announce(uint64_t open) {
  // Under the lock, so that no thread can miss it between its last look and its sleep.
  absl::MutexLock lock(&mutex_);
  const uint64_t number = (region_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
  region_.store((number << kNumberShift) | open, std::memory_order_release);
  if (num_sleeping_ > 0) wake_.SignalAll();
}

bool ThreadPool::TryJoin() {
  uint64_t region = region_.load(std::memory_order_relaxed);
  while ((region & kOpen) != 0) {
    if (region_.compare_exchange_weak(region, region + kOneThread, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::RunTasks() {
  for (;;) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= num_tasks_) return;
    (*body_)(task);
  }
}

void ThreadPool::ThreadMain() {
  const auto number = [this] { return region_.load(std::memory_order_acquire) >> kNumberShift; };
  uint64_t seen = 0;
  for (;;) {
    for (int i = 0; i < kSpinIterations && number() == seen; ++i) Pause();
    if (number() == seen) {
      absl::MutexLock lock(&mutex_);
      ++num_sleeping_;
      while (number() == seen) wake_.Wait(&mutex_);
      --num_sleeping_;
    }
    if (stopping_.load(std::memory_order_relaxed)) return;
    seen = number();
    if (!TryJoin()) continue;
    // The region that was joined may be a later one than the one just seen.
    seen = number();
    RunTasks();
    region_.fetch_sub(kOneThread, std::memory_order_release);
  }
}

}  // namespace chorus
