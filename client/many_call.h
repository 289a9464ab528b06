#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "chorus/v1/inference.grpc.pb.h"

namespace chorus {

// One GenerateMany call: a thread of its own sends, the caller's reads. Behind
// ChorusClient::GenerateMany, which says what the functions mean. Used once, by one thread.
class ManyCall {
 public:
  // REQUIRES: window >= 1. `stub` and `context` outlive the call.
  ManyCall(v1::Inference::Stub& stub, grpc::ClientContext& context, int32_t window);

  absl::Status Run(const std::function<bool(v1::GenerateManyRequest*)>& next,
                   const std::function<void(const v1::GenerateManyResponse&)>& on_event);

 private:
  using Stream = grpc::ClientReaderWriter<v1::GenerateManyRequest, v1::GenerateManyResponse>;

  // Until `next` has no more or the stream is over.
  void SendAll(const std::function<bool(v1::GenerateManyRequest*)>& next);
  // Waits until a request may be sent, and counts it; false if the stream is over.
  bool TakePlace();
  bool HasPlaceOrIsOver() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return over_ || num_open_ < window_;
  }

  const int32_t window_;
  const std::unique_ptr<Stream> stream_;

  absl::Mutex mutex_;
  int64_t num_open_ ABSL_GUARDED_BY(mutex_) = 0;  // sent, or about to be, and not yet ended
  bool over_ ABSL_GUARDED_BY(mutex_) = false;     // nothing more can be read
};

}  // namespace chorus
