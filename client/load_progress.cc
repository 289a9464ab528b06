#include "client/load_progress.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace chorus {
namespace {

constexpr absl::Duration kLineEvery = absl::Seconds(10);  // where lines are not redrawn
constexpr absl::Duration kRecent = absl::Seconds(5);
constexpr const char* kClearLine = "\r\x1b[K";
// Of a line wider than the terminal only the last row could be cleared: it is cut off instead.
constexpr const char* kWrapOff = "\x1b[?7l";
constexpr const char* kWrapOn = "\x1b[?7h";

}  // namespace

void LoadProgress::Show(const LoadSnapshot& snapshot) {
  recent_.push_back(snapshot);
  while (recent_.size() > 2 && snapshot.elapsed - recent_.front().elapsed > kRecent) {
    recent_.pop_front();
  }
  if (is_terminal_) {
    out_ << kClearLine << kWrapOff << Line(snapshot) << kWrapOn << std::flush;
    has_line_ = true;
  } else if (snapshot.elapsed >= next_line_) {
    out_ << Line(snapshot) << std::endl;
    next_line_ += kLineEvery;
  }
}

void LoadProgress::Close() {
  if (has_line_) out_ << kClearLine << std::flush;
  has_line_ = false;
}

std::string LoadProgress::Line(const LoadSnapshot& snapshot) const {
  const LoadSnapshot& past = recent_.front();
  const double seconds = absl::ToDoubleSeconds(snapshot.elapsed - past.elapsed);
  const auto rate = [seconds](int64_t now, int64_t before) {
    return seconds > 0 ? static_cast<double>(now - before) / seconds : 0.0;
  };
  std::string line = absl::StrFormat(
      "%.0f s%s: %d done, %d in flight, %.1f requests/s, %.0f tokens/s, first token p50 %.2f s, "
      "p99 %.2f s",
      absl::ToDoubleSeconds(snapshot.elapsed), snapshot.is_warming_up ? " (warm-up)" : "",
      snapshot.num_done, snapshot.num_in_flight, rate(snapshot.num_done, past.num_done),
      rate(snapshot.num_tokens, past.num_tokens), snapshot.ttft_p50, snapshot.ttft_p99);
  if (snapshot.num_errors > 0) absl::StrAppend(&line, ", ", snapshot.num_errors, " errors");
  if (snapshot.num_not_sent > 0) absl::StrAppend(&line, ", ", snapshot.num_not_sent, " not sent");
  return line;
}

}  // namespace chorus
