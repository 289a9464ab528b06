#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "core/base/clock.h"
#include "core/cache/slot_allocator.h"
#include "core/engine/engine.h"
#include "core/engine/engine_observer.h"
#include "core/engine/model_runner.h"
#include "core/engine/request_ledger.h"
#include "core/engine/request_queue.h"
#include "core/engine/running_request.h"
#include "core/engine/scheduler.h"

namespace chorus {

// What the workers of a pool share. All outlive them.
struct WorkerContext {
  const EngineOptions* options = nullptr;
  const Tokenizer* tokenizer = nullptr;
  EngineObserver* observer = nullptr;
  const Clock* clock = nullptr;
  RequestLedger* ledger = nullptr;
};

// One thread that runs requests on one ModelRunner, step by step:
//
//   end what is cancelled or late -> admit what fits -> plan a step -> run it -> hand out tokens
//
// The thread alone owns runner, allocator and running requests. Sinks and observer are called by
// it, with no lock held. A request is admitted when all KV slots that it can ever need are free, so
// none is ever preempted.
class Worker {
 public:
  Worker(int32_t index, std::unique_ptr<ModelRunner> runner, const WorkerContext& context);
  // Ends what it has as CANCELLED and joins the thread.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const ModelInfo& model_info() const { return model_info_; }

  // Thread-safe.
  void Enqueue(std::unique_ptr<PendingRequest> pending);
  // Ends every request it has and will get, at the next step boundary, with `code`.
  void EndAll(absl::StatusCode code);
  // Rows that accepted requests may still need, at most: what placement compares.
  int64_t outstanding_rows() const { return outstanding_rows_.load(std::memory_order_relaxed); }
  bool IsLive(absl::Time now, absl::Duration limit) const;

 private:
  void ThreadMain();
  void Beat();
  void EndOutdated();
  void Admit();
  bool RunStep();
  absl::flat_hash_map<const RunningRequest*, absl::Status> DeliverAll(
      absl::Span<const StepWork> works, StepResult result);
  void Deliver(const StepWork& work, ChosenToken token, absl::Time now);
  void ReportStep(const StepPlan& plan, absl::Span<const StepWork> works, absl::Time begin);
  // Status of a request that must end now, OK if it may go on.
  absl::Status EndingOf(const Request& request, bool cancelled, absl::Time now) const;
  void EndWaiting(std::unique_ptr<PendingRequest> pending, const absl::Status& status);
  void EndRunning(std::unique_ptr<RunningRequest> running, const absl::Status& status);
  // Takes out of the batch, in order, what `ending` gives a status for other than nullopt.
  template <typename EndingFunction>
  void EndWhere(EndingFunction ending);
  void ReportLoad();

  const int32_t index_;
  const WorkerContext context_;
  const ModelInfo model_info_;

  // The thread's own.
  std::unique_ptr<ModelRunner> runner_;
  SlotAllocator allocator_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<RunningRequest>> running_;  // in order of admission

  // Shared.
  RequestQueue queue_;
  std::atomic<bool> stopping_{false};
  std::atomic<absl::StatusCode> ending_code_{absl::StatusCode::kOk};
  std::atomic<int64_t> outstanding_rows_{0};
  std::atomic<int64_t> last_progress_nanos_;  // of the clock

  std::thread thread_;
};

}  // namespace chorus
