#pragma once

#include <csignal>

namespace chorus {

// Ctrl-C as a question instead of an end. While it lives, SIGINT is blocked for this thread and
// every thread it starts; the first one is taken here, a second one ends the process as usual. One
// thread.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether SIGINT has come. Once true, always true.
  bool HasCome();

 private:
  sigset_t signals_;
  sigset_t previous_;
  bool has_come_ = false;
};

}  // namespace chorus
