#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/base/clock.h"
#include "core/engine/engine_observer.h"
#include "core/engine/model_runner.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"

namespace chorus {

class WorkerPool;

struct EngineOptions {
  // Admission, over all workers: beyond it a request is refused with RESOURCE_EXHAUSTED.
  int32_t max_queued_requests = 256;
  int64_t max_queued_tokens = int64_t{1} << 22;  // prompt and generated tokens of what waits
  int32_t max_explain_requests = 16;             // waiting and running; apart from the others
  int32_t max_request_tokens = 32768;            // all tokens of a request, generated ones included
  // A request that has waited longer ends with RESOURCE_EXHAUSTED, before any compute.
  absl::Duration max_queue_delay = absl::InfiniteDuration();
  // One step of priority counts as much as having waited this much longer.
  absl::Duration priority_ageing = absl::Seconds(1);

  // A worker's batch.
  int32_t max_running_requests = 128;  // paused ones not counted
  int32_t max_step_rows = 512;         // rows of one step: longer prompts are read in chunks
  int32_t prompt_share_rows = 12;      // see SchedulerOptions
  // Slots that segments may keep which no request uses; 0: nothing outlives its request.
  int32_t max_idle_cache_tokens = std::numeric_limits<int32_t>::max();
  // A request whose reader has taken nothing for this long ends with DEADLINE_EXCEEDED.
  absl::Duration max_reader_stall = absl::Minutes(5);

  std::vector<int32_t> eos_token_ids;
};

// Identifies a submitted request for Cancel; copyable, cheap.
struct RequestHandle {
  std::shared_ptr<std::atomic<bool>> cancelled;
};

// The facade: checks requests, queues them, and runs them on workers, one thread and one
// ModelRunner each. Thread-safe.
class Engine {
 public:
  // `tokenizer`, `observer` and `clock` must outlive the engine. One worker per runner.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      EngineOptions options, std::vector<std::unique_ptr<ModelRunner>> runners,
      const Tokenizer* tokenizer, EngineObserver* observer, const Clock* clock);
  // Cancels what still runs and joins the workers.
  ~Engine();

  // Accepts the request or says why not; never blocks on compute.
  //   INVALID_ARGUMENT    a field is out of its range (FieldOf names it), or the request can never
  //                       fit the context or the KV space (the message has the counts)
  //   RESOURCE_EXHAUSTED  the queue is full, for Explain requests their own
  //   DEADLINE_EXCEEDED   the deadline has passed
  //   UNAVAILABLE         draining
  // On an error the sink is never called.
  absl::StatusOr<RequestHandle> Submit(Request request, std::shared_ptr<TokenSink> sink);

  // Asks for an end: the request's rows leave the batch at the next step boundary and its sink gets
  // OnFinish(CANCELLED). Does nothing if it has ended. Never blocks.
  void Cancel(const RequestHandle& handle);

  // Stops admission; returns when all accepted requests have ended, or after `timeout`, when the
  // rest is ended with UNAVAILABLE. True if all ended by themselves.
  bool Drain(absl::Duration timeout);

  const ModelInfo& model_info() const;
  const EngineOptions& options() const;
  int32_t num_waiting() const;
  int32_t num_running() const;
  // Whether max_queued_requests wait.
  bool is_queue_full() const;

  // OK if every worker's loop has gone round within `limit` or has nothing to do, and has its
  // device; UNAVAILABLE says which one has not.
  absl::Status CheckLive(absl::Duration limit) const;

 private:
  explicit Engine(std::unique_ptr<WorkerPool> pool);
  std::unique_ptr<WorkerPool> pool_;
};

}  // namespace chorus
