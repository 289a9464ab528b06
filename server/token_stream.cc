#include "server/token_stream.h"

#include <utility>

#include "server/grpc_status.h"
#include "server/response.h"

namespace chorus {
namespace {

// gRPC cancels a call whose deadline passes by its own timer, which may run a little ahead of the
// engine's clock. Within this much of the deadline the engine is left to end the request itself, so
// that it counts as DEADLINE_EXCEEDED and not as cancelled.
constexpr absl::Duration kDeadlineTolerance = absl::Milliseconds(20);

}  // namespace

std::shared_ptr<TokenStream> TokenStream::Create(Options options) {
  std::shared_ptr<TokenStream> stream(new TokenStream(std::move(options)));
  absl::MutexLock lock(&stream->mutex_);
  stream->self_ = stream;
  return stream;
}

void TokenStream::Submit(Engine* engine, Request request) {
  request_id_ = request.id;
  seed_ = request.sampling.seed;
  method_ = request.fusion.method;
  num_prompts_ = static_cast<int32_t>(request.prompts.size());
  deadline_ = request.deadline;
  bool gone = false;
  {
    absl::MutexLock lock(&mutex_);
    gone = abandoned_;
  }
  if (gone) return Reject(absl::CancelledError("the caller is gone"));
  absl::StatusOr<RequestHandle> handle = engine->Submit(std::move(request), shared_from_this());
  if (!handle.ok()) return Reject(handle.status());
  {
    absl::MutexLock lock(&mutex_);
    engine_ = engine;
    handle_ = *handle;
    gone = abandoned_;
  }
  if (gone) Abandon();
}

void TokenStream::Reject(const absl::Status& status) { End(status, FinishSummary()); }

void TokenStream::OnStart(const PromptSummary& summary) {
  Push(ToPromptInfo(summary, request_id_, seed_));
}

void TokenStream::OnToken(TokenEvent event) {
  Push(ToTokenChunk(std::move(event), *options_.tokenizer));
}

void TokenStream::OnFinish(const absl::Status& status, FinishSummary summary) {
  End(status, std::move(summary));
}

bool TokenStream::WantsMore() const {
  absl::MutexLock lock(&mutex_);
  // Nobody reads any more: the engine is not to wait, but to find the cancellation.
  if (abandoned_) return true;
  return events_.size() < static_cast<size_t>(options_.max_buffered_events);
}

void TokenStream::Push(v1::GenerateResponse event) {
  {
    absl::MutexLock lock(&mutex_);
    if (abandoned_) return;
    events_.push_back(std::move(event));
  }
  Advance();
}

void TokenStream::End(const absl::Status& status, FinishSummary summary) {
  if (options_.on_end) {
    options_.on_end(StreamEnd{request_id_, method_, num_prompts_, status, summary});
  }
  {
    absl::MutexLock lock(&mutex_);
    if (status.ok() && !abandoned_) events_.push_back(ToFinishInfo(std::move(summary)));
    final_status_ = status;
  }
  Advance();
}

void TokenStream::Advance() {
  grpc::Status final_status;
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    if (write_in_flight_ || finish_called_) return;
    if (abandoned_) {
      final_status = grpc::Status(grpc::StatusCode::CANCELLED, "the caller is gone");
      finish = true;
    } else if (!events_.empty()) {
      current_ = std::move(events_.front());
      events_.pop_front();
      write_in_flight_ = true;
    } else if (final_status_.has_value()) {
      final_status = ToGrpcStatus(*final_status_);
      finish = true;
    } else {
      return;
    }
    finish_called_ = finish;
  }
  if (finish) {
    Finish(std::move(final_status));
  } else {
    StartWrite(&current_);
  }
}

void TokenStream::Abandon() {
  std::optional<RequestHandle> handle;
  Engine* engine = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    abandoned_ = true;
    events_.clear();
    engine = engine_;
    handle = handle_;
  }
  // `deadline_` may be read once there is a handle: Submit set it before.
  if (handle.has_value() && absl::Now() + kDeadlineTolerance < deadline_) engine->Cancel(*handle);
  Advance();
}

void TokenStream::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    write_in_flight_ = false;
  }
  if (!ok) return Abandon();
  Advance();
}

void TokenStream::OnCancel() { Abandon(); }

void TokenStream::OnDone() {
  std::shared_ptr<TokenStream> self;
  {
    absl::MutexLock lock(&mutex_);
    self = std::move(self_);
  }
  if (options_.on_done) options_.on_done();
}

}  // namespace chorus
