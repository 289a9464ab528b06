#include "server/task_pool.h"

#include <utility>

namespace chorus {

TaskPool::TaskPool(int32_t num_threads, int32_t max_waiting) : max_waiting_(max_waiting) {
  for (int32_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { ThreadMain(); });
}

TaskPool::~TaskPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool TaskPool::TryAdd(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (tasks_.size() >= max_waiting_) return false;
  tasks_.push_back(std::move(task));
  return true;
}

absl::Status TaskPool::FullError() {
  return absl::ResourceExhaustedError("too many long texts wait to be tokenised");
}

void TaskPool::ThreadMain() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &TaskPool::HasWork));
      if (tasks_.empty()) return;  // stopping
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace chorus
