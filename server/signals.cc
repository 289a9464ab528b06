#include "server/signals.h"

#include <algorithm>
#include <utility>

#include <pthread.h>

#include "absl/time/clock.h"

namespace chorus {

TerminationSignals::TerminationSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  sigaddset(&signals_, SIGUSR1);
  sigaddset(&signals_, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
}

void TerminationSignals::SetOnVerbosity(std::function<void()> more, std::function<void()> less) {
  more_ = std::move(more);
  less_ = std::move(less);
}

bool TerminationSignals::Wait(absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    // An hour at a time: the longest wait has no timespec.
    const absl::Duration left =
        std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Hours(1));
    const timespec limit = absl::ToTimespec(left);
    const int signal = sigtimedwait(&signals_, nullptr, &limit);
    if (signal == SIGTERM || signal == SIGINT) return true;
    if (signal == SIGUSR1 && more_) more_();
    if (signal == SIGUSR2 && less_) less_();
    if (signal < 0 && absl::Now() >= deadline) return false;
  }
}

}  // namespace chorus
