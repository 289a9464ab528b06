#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace grpc {
class HealthCheckServiceInterface;
}

namespace chorus {

// Keeps gRPC's own health service (Check and Watch) true: "" and "chorus.v1.Inference" are SERVING
// while `is_live` says so, NOT_SERVING otherwise and, for good, once draining. Looks every
// `interval` on a thread of its own; Watch streams hear of each change.
class HealthReporter {
 public:
  // `service` outlives the reporter. `is_live` must be thread-safe and quick.
  HealthReporter(grpc::HealthCheckServiceInterface* service, std::function<bool()> is_live,
                 absl::Duration interval);
  ~HealthReporter();
  HealthReporter(const HealthReporter&) = delete;
  HealthReporter& operator=(const HealthReporter&) = delete;

  // NOT_SERVING from the return of this call on.
  void SetDraining();

 private:
  void ThreadMain();
  void Report(bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::HealthCheckServiceInterface* const service_;
  const std::function<bool()> is_live_;
  const absl::Duration interval_;
  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chorus
