#include "server/health.h"

#include <utility>

#include <grpcpp/health_check_service_interface.h>

namespace chorus {

HealthReporter::HealthReporter(grpc::HealthCheckServiceInterface* service,
                               std::function<absl::Status()> check_live,
                               std::function<void(const absl::Status&)> on_change,
                               absl::Duration interval)
    : service_(service),
      check_live_(std::move(check_live)),
      on_change_(std::move(on_change)),
      interval_(interval) {
  {
    absl::MutexLock lock(&mutex_);
    Look();
  }
  thread_ = std::thread([this] { ThreadMain(); });
}

HealthReporter::~HealthReporter() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void HealthReporter::SetDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  Report(false);
}

void HealthReporter::Look() {
  const absl::Status status = check_live_();
  Report(!draining_ && status.ok());
  if (status.ok() != was_live_) on_change_(status);
  was_live_ = status.ok();
}

// gRPC's service takes its own lock and never calls back into this class.
void HealthReporter::Report(bool serving) {
  service_->SetServingStatus("", serving);
  service_->SetServingStatus("chorus.v1.Inference", serving);
}

void HealthReporter::ThreadMain() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval_)) {
    Look();
  }
}

}  // namespace chorus
