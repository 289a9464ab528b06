#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/fusion_strategy.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"

namespace chorus {

// An accepted request on its way to a worker's batch.
struct PendingRequest {
  Request request;
  FusionPlan plan;
  std::shared_ptr<TokenSink> sink;
  std::shared_ptr<std::atomic<bool>> cancelled;
  absl::Time submitted;
};

// The requests that wait for one worker: higher priority first, equal ones in order of arrival.
// Thread-safe; Push from any thread, the rest from the worker's. RequestLedger bounds how many
// there are, over all workers. Nothing overtakes the head: while it does not fit, nobody behind it
// starts, so that a large request is not starved by small ones (a higher priority may starve a
// lower one).
class RequestQueue {
 public:
  void Push(std::unique_ptr<PendingRequest> pending);

  // The head if it needs at most `num_free_slots`; null if it needs more or the queue is empty.
  std::unique_ptr<PendingRequest> PopIfFits(int64_t num_free_slots);

  // Takes out what is cancelled or past its deadline.
  std::vector<std::unique_ptr<PendingRequest>> TakeEnded(absl::Time now);
  std::vector<std::unique_ptr<PendingRequest>> TakeAll();

  // Ends the worker's present or next WaitForChange.
  void Wake();

  // Returns when something has been pushed or Wake called since the last return, or after `timeout`
  // of real time.
  void WaitForChange(absl::Duration timeout);

 private:
  using Key = std::pair<int64_t, int64_t>;  // {-priority, arrival}

  absl::Mutex mutex_;
  absl::CondVar change_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<Key, std::unique_ptr<PendingRequest>> requests_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
