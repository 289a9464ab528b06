#pragma once

#include <atomic>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/fusion_strategy.h"
#include "core/engine/request.h"
#include "core/engine/request_ledger.h"
#include "core/engine/token_sink.h"

namespace chorus {

// Whose turn it is: the smaller one's. A request counts as having come earlier by its priority
// times EngineOptions::priority_ageing, so a higher priority goes first, yet what has waited that
// much longer goes before it: nothing starves. Equal times go by order of arrival.
// Background requests come after all others.
struct Urgency {
  bool is_background = false;
  absl::Time time;
  int64_t arrival = 0;
  friend auto operator<=>(const Urgency& a, const Urgency& b) {
    return std::make_tuple(a.is_background, absl::ToUnixNanos(a.time), a.arrival) <=>
           std::make_tuple(b.is_background, absl::ToUnixNanos(b.time), b.arrival);
  }
};

// An accepted request on its way to a worker's batch.
struct PendingRequest {
  Request request;
  FusionPlan plan;
  std::shared_ptr<TokenSink> sink;
  std::shared_ptr<std::atomic<bool>> cancelled;
  absl::Time submitted;
  Urgency urgency;  // set by RequestQueue::Push

  // Explain requests run behind all others: see Batch.
  bool is_background() const { return request.explain.has_value(); }
  RequestLoad load() const { return {plan.num_slots, is_background()}; }
};

// The requests that wait for one worker, most urgent first. Thread-safe; Push from any thread, the
// rest from the worker's. RequestLedger bounds how many there are, over all workers.
class RequestQueue {
 public:
  explicit RequestQueue(absl::Duration priority_ageing) : priority_ageing_(priority_ageing) {}

  void Push(std::unique_ptr<PendingRequest> pending);

  // Puts back what was popped, in its old place.
  void Return(std::unique_ptr<PendingRequest> pending);

  // The head's urgency; nothing if the queue is empty.
  std::optional<Urgency> HeadUrgency() const;
  // The head; null if the queue is empty.
  std::unique_ptr<PendingRequest> Pop();

  // Takes out what is cancelled, past its deadline, or was submitted before `oldest`.
  std::vector<std::unique_ptr<PendingRequest>> TakeEnded(absl::Time now, absl::Time oldest);
  std::vector<std::unique_ptr<PendingRequest>> TakeAll();

  // Ends the worker's present or next WaitForChange.
  void Wake();

  // Returns when something has been pushed or Wake called since the last return, or after `timeout`
  // of real time.
  void WaitForChange(absl::Duration timeout);

 private:
  const absl::Duration priority_ageing_;
  mutable absl::Mutex mutex_;
  absl::CondVar change_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<Urgency, std::unique_ptr<PendingRequest>> requests_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
