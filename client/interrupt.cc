#include "client/interrupt.h"

#include <pthread.h>

namespace chorus {

Interrupt::Interrupt() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, &previous_);
}

Interrupt::~Interrupt() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

bool Interrupt::HasCome() {
  if (has_come_) return true;
  const timespec at_once = {};
  has_come_ = sigtimedwait(&signals_, nullptr, &at_once) == SIGINT;
  if (has_come_) pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
  return has_come_;
}

}  // namespace chorus
