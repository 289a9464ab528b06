#pragma once

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/engine_observer.h"

namespace chorus {

// What a request counts for.
struct RequestLoad {
  int64_t num_tokens = 0;
  bool is_background = false;  // waits in a queue of its own, which takes no place from others
};

// How many accepted requests there are, waiting and running, over all workers: bounds the queues by
// requests and by tokens, closes admission, and knows when all have ended. Thread-safe.
class RequestLedger {
 public:
  struct Limits {
    int32_t max_waiting = 0;
    int64_t max_waiting_tokens = 0;
    int32_t max_background = 0;  // waiting and running
  };
  explicit RequestLedger(const Limits& limits) : limits_(limits) {}

  // Counts one more waiting request, or says why there may not be one (kDraining, kQueueFull). The
  // only one that waits may have any number of tokens.
  std::optional<RejectReason> TryAccept(const RequestLoad& load);

  void StartOne(const RequestLoad& load);       // a waiting request runs now
  void EndOneWaiting(const RequestLoad& load);  // ended without running
  void EndOneRunning(const RequestLoad& load);

  // From now on TryAccept refuses.
  void StartDraining();
  // Returns when no request is left (true) or after `timeout` of real time (false).
  bool AwaitEmpty(absl::Duration timeout);

  int32_t num_waiting() const;
  int32_t num_running() const;
  // Whether TryAccept would refuse a request that is not a background one, whatever its tokens.
  bool is_full() const;

 private:
  void TakeWaiting(const RequestLoad& load) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Limits limits_;

  mutable absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int32_t num_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_waiting_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t num_running_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t num_background_waiting_ ABSL_GUARDED_BY(mutex_) = 0;  // not in num_waiting_
  int32_t num_background_running_ ABSL_GUARDED_BY(mutex_) = 0;  // in num_running_
};

}  // namespace chorus
