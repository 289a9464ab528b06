#pragma once

#include <deque>
#include <ostream>
#include <string>

#include "absl/time/time.h"

#include "client/load_runner.h"

namespace chorus {

// Shows how a run stands: on a terminal a line that is redrawn at every call, elsewhere a line
// every ten seconds. Rates are of the last seconds. One thread.
class LoadProgress {
 public:
  LoadProgress(std::ostream& out, bool is_terminal) : out_(out), is_terminal_(is_terminal) {}

  void Show(const LoadSnapshot& snapshot);

  // Takes the redrawn line away.
  void Close();

 private:
  std::string Line(const LoadSnapshot& snapshot) const;

  std::ostream& out_;
  const bool is_terminal_;
  std::deque<LoadSnapshot> recent_;  // oldest first
  absl::Duration next_line_ = absl::Seconds(10);
  bool has_line_ = false;
};

}  // namespace chorus
