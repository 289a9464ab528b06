#pragma once

#include "absl/time/time.h"

namespace chorus {

// Where the engine reads the time, so that tests can move it. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  // The machine's clock; never destroyed.
  static const Clock* Real();
};

}  // namespace chorus
