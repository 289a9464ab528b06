#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/engine.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"

namespace chorus {

// The one request of a call, between the engine that is to run it and a caller who may go at any
// time: before the engine has it, while it takes it, or after. Thread-safe.
class Submission {
 public:
  // Hands the request to the engine, which must outlive this. CANCELLED if Cancel came first, else
  // the engine's own refusal; after an error the sink is never called. At most once.
  absl::Status Submit(Engine* engine, Request request, std::shared_ptr<TokenSink> sink);

  // The caller is gone: takes the request out of the engine (see CancelUnlessLate), now or as soon
  // as the engine has it. More than once is as once.
  void Cancel();

 private:
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  // Once the engine has the request:
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::optional<RequestHandle> handle_ ABSL_GUARDED_BY(mutex_);
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
};

}  // namespace chorus
