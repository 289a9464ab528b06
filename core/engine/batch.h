#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/base/clock.h"
#include "core/cache/segment_cache.h"
#include "core/engine/engine.h"
#include "core/engine/engine_observer.h"
#include "core/engine/model_runner.h"
#include "core/engine/request_ledger.h"
#include "core/engine/request_queue.h"
#include "core/engine/running_request.h"
#include "core/engine/scheduler.h"
#include "core/text/tokenizer.h"

namespace chorus {

// What the workers of a pool share. All outlive them.
struct WorkerContext {
  const EngineOptions* options = nullptr;
  const Tokenizer* tokenizer = nullptr;
  EngineObserver* observer = nullptr;
  const Clock* clock = nullptr;
  RequestLedger* ledger = nullptr;
};

// What a worker's batch takes its requests from, how much work it still has, and whether it can do
// any. Shared with the threads that place requests.
class WorkerInbox {
 public:
  explicit WorkerInbox(absl::Duration priority_ageing) : queue(priority_ageing) {}
  RequestQueue queue;
  // Rows that accepted requests may still need, at most: what placement compares.
  std::atomic<int64_t> outstanding_rows{0};

  // By the worker's thread: its device is lost, and every request ends with `why` from now on.
  void LoseDevice(absl::Status why) {
    if (is_lost_) return;
    loss_ = std::move(why);
    is_lost_ = true;
  }
  // Why the device is lost; OK if it is not.
  absl::Status Loss() const { return is_lost_ ? loss_ : absl::OkStatus(); }
  bool is_lost() const { return is_lost_; }

 private:
  std::atomic<bool> is_lost_{false};
  absl::Status loss_;  // written before is_lost_ is set, read after
};

// The requests of one worker, run step by step on its ModelRunner:
//
//   end what is cancelled or late -> admit what fits -> plan a step -> run it -> hand out tokens
//
// A request is admitted when its prompt fits, and its KV space grows with its answer. When space
// runs out, idle segments go first, then the KV space of requests that are paused or less urgent
// than the one in need: those read what they had again later, to the same bits, so that nothing
// that fits alone ever fails. The most urgent request never loses its space while it runs.
//
// Background requests (Explain) are not to be felt by others: one at a time, admitted when nothing
// else waits; its rows run while no other request has any, and besides in one step of
// kBackgroundPeriod, so that it goes on under any load; it gives its KV space to whoever needs it,
// and takes none from anybody.
//
// Without a thread of its own, so that a simulation can run it under a virtual clock; used by one
// thread at a time. Sinks and observer are called with no lock held.
class Batch {
 public:
  static constexpr int64_t kBackgroundPeriod = 64;

  Batch(int32_t worker, ModelRunner* runner, const WorkerContext& context, WorkerInbox* inbox);
  ~Batch();  // REQUIRES: every request has ended
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  enum class Progress {
    kStepped,  // a step has run
    kPaused,   // there are requests, but their readers are all behind
    kIdle,     // nothing to do
  };
  // One turn of the loop above. With an `ending` other than OK all requests end with it first.
  Progress RunOnce(const absl::Status& ending);

  const SegmentCache& cache() const { return cache_; }
  int32_t num_running() const { return static_cast<int32_t>(running_.size() + parked_.size()); }

 private:
  using Requests = std::vector<std::unique_ptr<RunningRequest>>;

  void EndOutdated(const absl::Status& ending);
  // Status with which a request must end now, OK if it may go on.
  absl::Status EndingOf(const PendingRequest& pending, absl::Time now,
                        const absl::Status& ending) const;
  absl::Status EndingOfWaiting(const PendingRequest& pending, absl::Time now,
                               const absl::Status& ending) const;
  void NotePause(RunningRequest* request) const;

  void Admit();
  // Sets next_ to the head of the queue; null if nothing waits.
  void FindNext();
  std::unique_ptr<PendingRequest> TakeNext();
  // True if the batch has room for it now and it has taken its KV space.
  bool TryTakeKv(RunningRequest* request);
  // Whether so few run that this one may too; `resumes`: it has been started before.
  bool MayRun(const RunningRequest& request, bool resumes) const;
  bool Fits(const RunningRequest& request) const;
  // True if even at the best rate seen its first token would come too late.
  bool IsHopeless(const RunningRequest& request, absl::Time now) const;
  void Start(RunningRequest* request);
  void Insert(std::unique_ptr<RunningRequest> request, Requests* into);
  std::unique_ptr<RunningRequest> TakeOut(const RunningRequest* request, Requests* from);
  // Gives every generating sequence a slot for its last token, by preemption if it must be.
  void GrowAll();
  // Parks one that gives its KV space up to `request`: a background or a paused one.
  bool ParkOneFor(const RunningRequest& request);
  // Takes its KV space; it waits among parked_ then.
  void Park(RunningRequest* request);

  bool RunStep();
  // Those of running_ that take part in the next step.
  std::vector<RunningRequest*> ReadyRequests() const;
  // The most urgent of alone_ that runs still, and takes it off; null if none is left.
  RunningRequest* TakeAlone();
  // Returns the requests of which a choice failed.
  absl::flat_hash_map<const RunningRequest*, absl::Status> DeliverAll(
      absl::Span<const StepWork> works, StepResult result);
  void Deliver(const StepWork& work, ChosenToken token,
               absl::Span<const AttentionProbeResult> probes, absl::Time now);
  void DeliverScore(const StepWork& work, const ChosenToken& token, absl::Time now);
  void ReportStep(const StepPlan& plan, absl::Span<const StepWork> works, absl::Time begin);

  void EndPending(std::unique_ptr<PendingRequest> pending, const absl::Status& status);
  void EndStarted(std::unique_ptr<RunningRequest> request, const absl::Status& status);
  // Takes out of `from`, in order, what `ending` gives a status for.
  template <typename EndingFunction>
  void EndWhere(Requests* from, const EndingFunction& ending);
  void ReportLoad();
  void ReportKvUse();

  const int32_t worker_;
  const WorkerContext context_;
  ModelRunner& runner_;
  WorkerInbox& inbox_;
  SegmentCache cache_;
  Scheduler scheduler_;
  Requests running_;  // most urgent first; all have KV space
  Requests parked_;   // most urgent first; started, preempted, without KV space
  // The next one to be admitted, taken from the queue and not yet started; or null.
  std::unique_ptr<RunningRequest> next_;
  // Those of a step that ran out of memory, until each has had the next step to itself: what one of
  // them wants too much ends that one only. Compared with running_, never dereferenced.
  absl::flat_hash_set<const RunningRequest*> alone_;
  int64_t num_steps_ = 0;
  double best_rows_per_second_ = 0.0;  // of any step so far
  int64_t num_evictions_reported_ = 0;
  int32_t num_slots_reported_ = -1;
};

}  // namespace chorus
