#pragma once

#include <csignal>

#include "absl/time/time.h"

namespace chorus {

// SIGTERM and SIGINT, blocked for this thread and every thread it starts, and taken one by one
// here. Make it first thing in main.
class TerminationSignals {
 public:
  TerminationSignals();

  // Waits for the next one; false if `timeout` passed first.
  bool Wait(absl::Duration timeout) const;

 private:
  sigset_t signals_;
};

}  // namespace chorus
