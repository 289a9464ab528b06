#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "server/logging.h"
#include "server/model_setup.h"
#include "server/signals.h"

namespace chorus {

// Tells on stderr how far loading is: rewrites one line on a terminal, else writes a log line every
// few seconds, so that a model that loads at once brings none. A signal while loading ends the
// process: there is nothing to drain yet. Thread-safe; both references outlive it.
class LoadProgress : public LoadObserver {
 public:
  LoadProgress(const Logger& logger, const TerminationSignals& signals);

  void OnProgress(const std::string& what, int done, int total) override;
  void OnWarning(const std::string& text) override;

 private:
  const Logger& logger_;
  const TerminationSignals& signals_;
  const bool is_terminal_;
  absl::Mutex mutex_;
  absl::Time last_line_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
