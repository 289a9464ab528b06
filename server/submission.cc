#include "server/submission.h"

#include <utility>

#include "server/stream_end.h"

namespace chorus {

absl::Status Submission::Submit(Engine* engine, Request request, std::shared_ptr<TokenSink> sink) {
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the caller is gone");
  }
  const absl::Time deadline = request.deadline;
  absl::StatusOr<RequestHandle> handle = engine->Submit(std::move(request), std::move(sink));
  if (!handle.ok()) return handle.status();
  bool gone = false;
  {
    absl::MutexLock lock(&mutex_);
    engine_ = engine;
    handle_ = *handle;
    deadline_ = deadline;
    gone = cancelled_;
  }
  if (gone) Cancel();
  return absl::OkStatus();
}

void Submission::Cancel() {
  std::optional<RequestHandle> handle;
  Engine* engine = nullptr;
  absl::Time deadline;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    engine = engine_;
    handle = handle_;
    deadline = deadline_;
  }
  if (handle.has_value()) CancelUnlessLate(*engine, *handle, deadline);
}

}  // namespace chorus
