#include "server/token_stream.h"

#include <utility>
#include <variant>

#include "server/grpc_status.h"
#include "server/response.h"

namespace chorus {
std::shared_ptr<TokenStream> TokenStream::Create(Options options) {
  std::shared_ptr<TokenStream> stream(new TokenStream(std::move(options)));
  absl::MutexLock lock(&stream->mutex_);
  stream->self_ = stream;
  return stream;
}

void TokenStream::Submit(Engine* engine, Request request) {
  record_ = RecordOf(request);
  const absl::Status status = submission_.Submit(engine, std::move(request), shared_from_this());
  if (!status.ok()) Reject(status);
}

void TokenStream::Reject(const absl::Status& status) { End(status, FinishSummary()); }

void TokenStream::OnStart(const PromptSummary& summary) {
  Push([&](EventBuffer& events) { events.AddStart(summary); });
}

void TokenStream::OnToken(TokenEvent event) {
  Push([&](EventBuffer& events) { events.AddToken(std::move(event)); });
}

void TokenStream::OnFinish(const absl::Status& status, FinishSummary summary) {
  End(status, std::move(summary));
}

bool TokenStream::WantsMore() const {
  absl::MutexLock lock(&mutex_);
  // Nobody reads any more: the engine is not to wait, but to find the cancellation.
  if (abandoned_) return true;
  return events_.num_waiting() < options_.max_buffered_events;
}

void TokenStream::Push(const std::function<void(EventBuffer&)>& add) {
  {
    absl::MutexLock lock(&mutex_);
    if (abandoned_) return;
    add(events_);
    if (write_in_flight_) return;
  }
  Advance();
}

void TokenStream::End(const absl::Status& status, FinishSummary summary) {
  if (options_.on_end) options_.on_end(StreamEnd{record_, status, summary});
  {
    absl::MutexLock lock(&mutex_);
    // An abandoned call may have been finished already.
    if (!abandoned_ && options_.add_trailers) options_.add_trailers(summary);
    if (status.ok() && !abandoned_) events_.AddFinish(std::move(summary));
    final_status_ = status;
  }
  Advance();
}

void TokenStream::Advance() {
  std::optional<StreamEvent> event;
  grpc::Status final_status;
  bool more = false;
  bool finish = false;
  {
    absl::MutexLock lock(&mutex_);
    if (write_in_flight_ || finish_called_) return;
    if (abandoned_) {
      final_status = grpc::Status(grpc::StatusCode::CANCELLED, "the caller is gone");
      finish = true;
    } else if (!events_.empty()) {
      event = events_.TakeNext();
      write_in_flight_ = true;
      more = !events_.empty();
      // The last message and the end of the call go out together.
      finish = std::holds_alternative<FinishSummary>(*event);
    } else if (final_status_.has_value()) {
      final_status = ToGrpcStatus(*final_status_);
      finish = true;
    } else {
      return;
    }
    finish_called_ = finish;
  }
  if (!event.has_value()) return Finish(std::move(final_status));
  FillResponse(*std::move(event), record_, *options_.tokenizer, &current_);
  grpc::WriteOptions options;
  if (finish) return StartWriteAndFinish(&current_, options, grpc::Status::OK);
  // What waits already is written as soon as this is done: gRPC may send both in one go.
  if (more) options.set_buffer_hint();
  StartWrite(&current_, options);
}

void TokenStream::Abandon() {
  {
    absl::MutexLock lock(&mutex_);
    abandoned_ = true;
    events_.Clear();
  }
  submission_.Cancel();
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
