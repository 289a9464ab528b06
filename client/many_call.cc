#include "client/many_call.h"

#include <thread>

#include "absl/strings/str_cat.h"

#include "client/grpc_error.h"
#include "core/base/status_macros.h"

namespace chorus {

ManyCall::ManyCall(v1::Inference::Stub& stub, grpc::ClientContext& context, int32_t window)
    : window_(window), stream_(stub.GenerateMany(&context)) {}

absl::Status ManyCall::Run(const std::function<bool(v1::GenerateManyRequest*)>& next,
                           const std::function<void(const v1::GenerateManyResponse&)>& on_event) {
  std::thread sender([&] { SendAll(next); });
  v1::GenerateManyResponse event;
  while (stream_->Read(&event)) {
    if (on_event) on_event(event);
    if (!event.has_error() && !event.response().has_finish()) continue;
    absl::MutexLock lock(&mutex_);
    --num_open_;
  }
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
  }
  sender.join();
  CHORUS_RETURN_IF_ERROR(ToAbslStatus(stream_->Finish()));
  absl::MutexLock lock(&mutex_);
  if (num_open_ == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the stream ended without the last message of ", num_open_, " requests"));
}

void ManyCall::SendAll(const std::function<bool(v1::GenerateManyRequest*)>& next) {
  v1::GenerateManyRequest request;
  while (TakePlace()) {
    request.Clear();
    const bool given = next(&request);
    if (given && stream_->Write(request)) continue;
    if (given) return;  // the stream is broken: its status says why
    absl::MutexLock lock(&mutex_);
    --num_open_;
    break;
  }
  stream_->WritesDone();
}

bool ManyCall::TakePlace() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &ManyCall::HasPlaceOrIsOver));
  if (over_) return false;
  ++num_open_;
  return true;
}

}  // namespace chorus
