#pragma once

#include <cstdint>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "server/logging.h"

namespace chorus {

// Log lines about calls without a valid token: at most one a second, for whoever has no token must
// not be able to fill a disk. Each line says how many came since the last. Thread-safe.
class RefusalLog {
 public:
  // `logger` outlives it.
  explicit RefusalLog(const Logger* logger) : logger_(logger) {}

  // `path` is of the caller's choice: it is cut to 200 bytes.
  void Add(std::string_view path);

 private:
  const Logger* const logger_;
  absl::Mutex mutex_;
  int64_t num_unlogged_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time next_line_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace chorus
