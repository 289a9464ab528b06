#include "server/signals.h"

#include <pthread.h>

namespace chorus {

TerminationSignals::TerminationSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
}

bool TerminationSignals::Wait(absl::Duration timeout) const {
  if (timeout == absl::InfiniteDuration()) {
    int signal = 0;
    while (sigwait(&signals_, &signal) != 0) {
    }
    return true;
  }
  const timespec limit = absl::ToTimespec(timeout);
  return sigtimedwait(&signals_, nullptr, &limit) > 0;
}

}  // namespace chorus
