#include "core/engine/request_ledger.h"

#include "core/base/check.h"

namespace chorus {

std::optional<RejectReason> RequestLedger::TryAccept(int64_t num_tokens) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return RejectReason::kDraining;
  if (num_waiting_ >= max_waiting_) return RejectReason::kQueueFull;
  if (num_waiting_ > 0 && num_waiting_tokens_ + num_tokens > max_waiting_tokens_) {
    return RejectReason::kQueueFull;
  }
  ++num_waiting_;
  num_waiting_tokens_ += num_tokens;
  return std::nullopt;
}

void RequestLedger::StartOne(int64_t num_tokens) {
  absl::MutexLock lock(&mutex_);
  CHECK(num_waiting_-- > 0);
  num_waiting_tokens_ -= num_tokens;
  ++num_running_;
}

void RequestLedger::EndOneWaiting(int64_t num_tokens) {
  absl::MutexLock lock(&mutex_);
  CHECK(num_waiting_-- > 0);
  num_waiting_tokens_ -= num_tokens;
}

void RequestLedger::EndOneRunning() {
  absl::MutexLock lock(&mutex_);
  CHECK(num_running_-- > 0);
}

void RequestLedger::StartDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool RequestLedger::AwaitEmpty(absl::Duration timeout) {
  const auto is_empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_waiting_ + num_running_ == 0;
  };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&is_empty), timeout);
}

int32_t RequestLedger::num_waiting() const {
  absl::MutexLock lock(&mutex_);
  return num_waiting_;
}

int32_t RequestLedger::num_running() const {
  absl::MutexLock lock(&mutex_);
  return num_running_;
}

}  // namespace chorus
