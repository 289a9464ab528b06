#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace grpc {
class HealthCheckServiceInterface;
}

namespace chorus {

// Keeps gRPC's own health service (Check and Watch) true: "" and "chorus.v1.Inference" are SERVING
// while `check_live` is OK, NOT_SERVING otherwise and, for good, once draining. Looks every
// `interval` on a thread of its own; Watch streams hear of each change.
class HealthReporter {
 public:
  // `service` outlives the reporter. `check_live` must be thread-safe and quick; `on_change` hears
  // of it when it is no longer OK, and when it is again.
  HealthReporter(grpc::HealthCheckServiceInterface* service,
                 std::function<absl::Status()> check_live,
                 std::function<void(const absl::Status&)> on_change, absl::Duration interval);
  ~HealthReporter();
  HealthReporter(const HealthReporter&) = delete;
  HealthReporter& operator=(const HealthReporter&) = delete;

  // NOT_SERVING from the return of this call on.
  void SetDraining();

 private:
  void ThreadMain();
  void Look() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Report(bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::HealthCheckServiceInterface* const service_;
  const std::function<absl::Status()> check_live_;
  const std::function<void(const absl::Status&)> on_change_;
  const absl::Duration interval_;
  absl::Mutex mutex_;
  bool was_live_ ABSL_GUARDED_BY(mutex_) = true;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chorus
