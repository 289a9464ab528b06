#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "core/engine/batch.h"
#include "core/engine/model_runner.h"
#include "core/engine/request_queue.h"

namespace chorus {

// One thread that runs a Batch on one ModelRunner, which it alone uses.
class Worker {
 public:
  Worker(int32_t index, std::unique_ptr<ModelRunner> runner, const WorkerContext& context);
  // Ends what it has as CANCELLED and joins the thread.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Thread-safe.
  void Enqueue(std::unique_ptr<PendingRequest> pending);
  // Ends every request it has and will get, at the next step boundary, with `code`.
  void EndAll(absl::StatusCode code);
  // Rows that accepted requests may still need, at most: what placement compares.
  int64_t outstanding_rows() const {
    return inbox_.outstanding_rows.load(std::memory_order_relaxed);
  }
  // OK if it has nothing to do or has gone round within `limit`; UNAVAILABLE says what is wrong.
  absl::Status CheckLive(absl::Time now, absl::Duration limit) const;
  // Its device is lost: it ends what it has and will get with UNAVAILABLE.
  bool is_lost() const { return inbox_.is_lost(); }

 private:
  void ThreadMain();
  void Beat();

  const int32_t index_;
  const WorkerContext context_;
  const std::unique_ptr<ModelRunner> runner_;
  WorkerInbox inbox_;
  std::atomic<bool> stopping_{false};
  std::atomic<absl::StatusCode> ending_code_{absl::StatusCode::kOk};
  std::atomic<int64_t> last_progress_nanos_;  // of the clock
  std::thread thread_;
};

}  // namespace chorus
