#pragma once

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/engine_observer.h"

namespace chorus {

// How many accepted requests there are, waiting and running, over all workers: bounds the queues by
// requests and by tokens, closes admission, and knows when all have ended. Thread-safe.
class RequestLedger {
 public:
  RequestLedger(int32_t max_waiting, int64_t max_waiting_tokens)
      : max_waiting_(max_waiting), max_waiting_tokens_(max_waiting_tokens) {}

  // Counts one more waiting request of `num_tokens`, or says why there may not be one (kDraining,
  // kQueueFull). The only one that waits may have any number of tokens.
  std::optional<RejectReason> TryAccept(int64_t num_tokens);

  void StartOne(int64_t num_tokens);       // a waiting request runs now
  void EndOneWaiting(int64_t num_tokens);  // ended without running
  void EndOneRunning();

  // From now on TryAccept refuses.
  void StartDraining();
  // Returns when no request is left (true) or after `timeout` of real time (false).
  bool AwaitEmpty(absl::Duration timeout);

  int32_t num_waiting() const;
  int32_t num_running() const;

 private:
  const int32_t max_waiting_;
  const int64_t max_waiting_tokens_;

  mutable absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int32_t num_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_waiting_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t num_running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace chorus
