#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"
#include "server/event_buffer.h"
#include "server/stream_end.h"
#include "server/submission.h"

namespace chorus {

// One Generate call: takes the engine's events (TokenSink) and writes them to the client (gRPC's
// reactor).
//
// Ownership: the stream holds itself until gRPC's OnDone, which is the last reaction; the engine
// holds it until after OnFinish. Whichever is later destroys it.
// Threads: engine threads call the sink's methods, gRPC threads the reactions, any thread Submit or
// Reject (once, one of them). One write is outstanding at a time, and Finish is called once, when
// no write is outstanding. gRPC is never called under the lock. Backpressure: WantsMore is false
// while max_buffered_events tokens (or events without one) wait to be written, so what is buffered
// is bounded by that and the tokens of one model step. While a write is outstanding further tokens
// are merged (EventBuffer).
class TokenStream final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                          public TokenSink,
                          public std::enable_shared_from_this<TokenStream> {
 public:
  struct Options {
    const Tokenizer* tokenizer = nullptr;  // outlives the stream
    int32_t max_buffered_events = 64;
    std::function<void(const StreamEnd&)> on_end;  // once, when the engine or a refusal ended it
    std::function<void()> on_done;                 // once, when gRPC has let go of it
    // At most once, before the call's last message or status; must not block. May be null.
    std::function<void(const FinishSummary&)> add_trailers;
  };
  // The reactor to return to gRPC, alive until its OnDone.
  static std::shared_ptr<TokenStream> Create(Options options);

  // Hands `request` to the engine (which must outlive the stream), or ends the call with its error.
  void Submit(Engine* engine, Request request);

  // Ends a call whose request was never submitted.
  void Reject(const absl::Status& status);

  // TokenSink.
  void OnStart(const PromptSummary& summary) override;
  void OnToken(TokenEvent event) override;
  void OnFinish(const absl::Status& status, FinishSummary summary) override;
  bool WantsMore() const override;

  // grpc::ServerWriteReactor.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit TokenStream(Options options) : options_(std::move(options)) {}
  // Lets `add` put an event into the buffer, unless nobody reads any more, and writes.
  void Push(const std::function<void(EventBuffer&)>& add);
  void End(const absl::Status& status, FinishSummary summary);
  // The client is gone: drops what is unread and takes the request out of the engine.
  void Abandon();
  // Starts the next write, or finishes, or does nothing if neither is due.
  void Advance();

  const Options options_;

  // Set in Submit before the engine knows the stream; const afterwards.
  RequestRecord record_;
  Submission submission_;

  mutable absl::Mutex mutex_;
  std::shared_ptr<TokenStream> self_ ABSL_GUARDED_BY(mutex_);
  EventBuffer events_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> final_status_ ABSL_GUARDED_BY(mutex_);
  bool write_in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool finish_called_ ABSL_GUARDED_BY(mutex_) = false;

  v1::GenerateResponse current_;  // being written; touched only by whoever set write_in_flight_
};

}  // namespace chorus
