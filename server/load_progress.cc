#include "server/load_progress.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

#include "absl/time/clock.h"

namespace chorus {
namespace {

constexpr absl::Duration kBetweenLines = absl::Seconds(5);

}  // namespace

LoadProgress::LoadProgress(const Logger& logger, const TerminationSignals& signals)
    : logger_(logger),
      signals_(signals),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      last_line_(absl::Now()) {}

void LoadProgress::OnProgress(const std::string& what, int done, int total) {
  if (signals_.Wait(absl::ZeroDuration())) std::_Exit(EXIT_SUCCESS);
  if (is_terminal_) {
    std::fprintf(stderr, "\rloading %s: %d of %d parts%s", what.c_str(), done, total,
                 done == total ? "\n" : "");
    return;
  }
  const absl::Time now = absl::Now();
  {
    const absl::MutexLock lock(&mutex_);
    if (now - last_line_ < kBetweenLines) return;
    last_line_ = now;
  }
  logger_.Log(Logger::Level::kInfo, "loading",
              {{"what", what}, {"done", int64_t{done}}, {"total", int64_t{total}}});
}

void LoadProgress::OnWarning(const std::string& text) {
  logger_.Log(Logger::Level::kWarning, "loading", {{"problem", text}});
}

}  // namespace chorus
