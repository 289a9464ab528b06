#pragma once

#include <csignal>
#include <functional>

#include "absl/time/time.h"

namespace chorus {

// SIGTERM and SIGINT, and SIGUSR1 and SIGUSR2, which change how much is logged: blocked for this
// thread and every thread it starts, and taken one by one here. Make it first thing in main.
class TerminationSignals {
 public:
  TerminationSignals();

  // What SIGUSR1 (more) and SIGUSR2 (less) do from now on, as it is with ntpd and named. They are
  // taken within Wait only.
  void SetOnVerbosity(std::function<void()> more, std::function<void()> less);

  // Waits for the next SIGTERM or SIGINT; false if `timeout` passed first.
  bool Wait(absl::Duration timeout) const;

 private:
  sigset_t signals_;
  std::function<void()> more_;
  std::function<void()> less_;
};

}  // namespace chorus
