#include "server/health.h"

#include <utility>

#include <grpcpp/health_check_service_interface.h>

namespace chorus {

HealthReporter::HealthReporter(grpc::HealthCheckServiceInterface* service,
                               std::function<bool()> is_live, absl::Duration interval)
    : service_(service), is_live_(std::move(is_live)), interval_(interval) {
  {
    absl::MutexLock lock(&mutex_);
    Report(is_live_());
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

// gRPC's service takes its own lock and never calls back into this class.
void HealthReporter::Report(bool serving) {
  service_->SetServingStatus("", serving);
  service_->SetServingStatus("chorus.v1.Inference", serving);
}

void HealthReporter::ThreadMain() {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval_)) {
    Report(!draining_ && is_live_());
  }
}

}  // namespace chorus
