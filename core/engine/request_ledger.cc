#include "core/engine/request_ledger.h"

#include "core/base/check.h"

namespace chorus {

std::optional<RejectReason> RequestLedger::TryAccept(const RequestLoad& load) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return RejectReason::kDraining;
  if (load.is_background) {
    const int32_t num_background = num_background_waiting_ + num_background_running_;
    if (num_background >= limits_.max_background) return RejectReason::kQueueFull;
    ++num_background_waiting_;
    return std::nullopt;
  }
  if (num_waiting_ >= limits_.max_waiting) return RejectReason::kQueueFull;
  if (num_waiting_ > 0 && num_waiting_tokens_ + load.num_tokens > limits_.max_waiting_tokens) {
    return RejectReason::kQueueFull;
  }
  ++num_waiting_;
  num_waiting_tokens_ += load.num_tokens;
  return std::nullopt;
}

void RequestLedger::StartOne(const RequestLoad& load) {
  absl::MutexLock lock(&mutex_);
  TakeWaiting(load);
  ++num_running_;
  if (load.is_background) ++num_background_running_;
}

void RequestLedger::EndOneWaiting(const RequestLoad& load) {
  absl::MutexLock lock(&mutex_);
  TakeWaiting(load);
}

void RequestLedger::TakeWaiting(const RequestLoad& load) {
  CHECK((load.is_background ? num_background_waiting_ : num_waiting_)-- > 0);
  if (!load.is_background) num_waiting_tokens_ -= load.num_tokens;
}

void RequestLedger::EndOneRunning(const RequestLoad& load) {
  absl::MutexLock lock(&mutex_);
  CHECK(num_running_-- > 0);
  if (load.is_background) --num_background_running_;
}

void RequestLedger::StartDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool RequestLedger::AwaitEmpty(absl::Duration timeout) {
  const auto is_empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_waiting_ + num_background_waiting_ + num_running_ == 0;
  };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&is_empty), timeout);
}

int32_t RequestLedger::num_waiting() const {
  absl::MutexLock lock(&mutex_);
  return num_waiting_ + num_background_waiting_;
}

int32_t RequestLedger::num_running() const {
  absl::MutexLock lock(&mutex_);
  return num_running_;
}

bool RequestLedger::is_full() const {
  absl::MutexLock lock(&mutex_);
  return num_waiting_ >= limits_.max_waiting;
}

}  // namespace chorus
