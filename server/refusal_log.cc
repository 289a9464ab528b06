#include "server/refusal_log.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"

namespace chorus {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);
constexpr size_t kMaxPathBytes = 200;

}  // namespace

void RefusalLog::Add(std::string_view path) {
  int64_t num_calls = 0;
  {
    absl::MutexLock lock(&mutex_);
    ++num_unlogged_;
    const absl::Time now = absl::Now();
    if (now < next_line_) return;
    next_line_ = now + kInterval;
    num_calls = std::exchange(num_unlogged_, 0);
  }
  logger_->Log(Logger::Level::kWarning, "unauthenticated",
               {{"calls", num_calls}, {"last_path", std::string(path.substr(0, kMaxPathBytes))}});
}

}  // namespace chorus
