#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "core/engine/engine_observer.h"
#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"
#include "server/event_buffer.h"
#include "server/request_intake.h"
#include "server/stream_end.h"

namespace chorus {

// One GenerateMany call: reads requests, gives each to the engine behind a sink of its own (a
// Member), and writes what the sinks get, members in turn.
//
// Messages come and go as bytes: gRPC takes one that it cannot parse (a text that is not UTF-8,
// say) for the end of the stream, which would leave the requests behind it unanswered.
//
// Flow: at most max_requests members are open, from reading a request until its last event is
// taken for writing; while there are that many, nothing is read. A member that finds the engine's
// queue (or the tokenizers' pool) full waits and is tried again, and meanwhile nothing is read
// either, so a fast caller is slowed down and never refused. Each member pauses its request while
// max_buffered_events of its tokens are unwritten. So what a stream holds is bounded by
// max_requests requests and max_requests * (max_buffered_events + one step's) tokens.
//
// End: OK once the caller has half-closed and no member is open; CANCELLED if the caller is gone;
// UNAVAILABLE if the server drains, a moment has passed, and no member is open.
//
// Ownership: the stream holds itself until OnDone; members hold the stream, and are held by it
// while open and by the engine until OnFinish.
// Threads: engine threads call the members, gRPC threads the reactions, the tokenizers' pool
// OnParsed, any thread StartDraining. One read and one write are outstanding at a time, Finish is
// called once, when no write is outstanding and nobody holds the call (num_holds_): who is about to
// start a read, or to use the engine on a thread that gRPC does not wait for, holds it. Neither
// gRPC nor the engine is called under the lock.
class GenerateManyStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                                 public std::enable_shared_from_this<GenerateManyStream> {
 public:
  struct Options {
    // These outlive the stream.
    Engine* engine = nullptr;
    RequestIntake* intake = nullptr;
    EngineObserver* observer = nullptr;
    const Tokenizer* tokenizer = nullptr;
    absl::Time deadline = absl::InfiniteFuture();  // of the call, and so of every request
    int32_t max_requests = 128;
    int32_t max_buffered_events = 64;
    std::function<void(const StreamEnd&)> on_end;  // once a request, when its end is known
    std::function<void()> on_done;                 // once, when gRPC has let go of the stream
  };
  // The reactor to return to gRPC, alive until its OnDone; reads at once.
  static std::shared_ptr<GenerateManyStream> Create(Options options);

  // From now on requests that the engine has not yet are refused with UNAVAILABLE, for a moment
  // those that still come too; then nothing is read any more.
  void StartDraining();

  // grpc::ServerBidiReactor.
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  class Member;
  using MemberPointer = std::shared_ptr<Member>;

  explicit GenerateManyStream(Options options) : options_(std::move(options)) {}

  // Reading. `incoming_` belongs to whoever set incoming_busy_.
  void ReadMore();
  // Makes incoming_ of the bytes; false if they are no such message. What could be read is kept.
  bool ParseIncomingBytes();
  absl::Status Register(const MemberPointer& member, bool is_readable);
  void ParseIncoming(const MemberPointer& member);
  void OnParsed(const MemberPointer& member, absl::StatusOr<Request> request);

  // Submitting, in order of arrival, one thread at a time.
  void SubmitWaiting();
  bool TrySubmit(const MemberPointer& member);
  void EndUnsubmitted(Member& member);
  void RetryLater();
  void Retry();

  // Writing.
  void Push(Member& member, const std::function<void(EventBuffer&)>& add);
  void End(Member& member, const absl::Status& status, FinishSummary summary);
  bool WantsMore(const Member& member) const;
  void MarkReady(Member& member) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next member's next event into `event`, or its error into `error`; returns the member.
  MemberPointer TakeNext(std::optional<StreamEvent>* event, absl::Status* error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The status to finish with, if it is time to.
  std::optional<grpc::Status> FinalStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write, or finishes, or does nothing if neither is due.
  void Advance();
  // Gives up one hold; finishes if it is time to.
  void Release();
  // The caller is gone: drops what is unread and takes the requests out of the engine.
  void Abandon();

  const Options options_;

  mutable absl::Mutex mutex_;
  std::shared_ptr<GenerateManyStream> self_ ABSL_GUARDED_BY(mutex_);
  int32_t num_open_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, MemberPointer> by_id_ ABSL_GUARDED_BY(mutex_);  // open ones
  std::deque<MemberPointer> waiting_ ABSL_GUARDED_BY(mutex_);  // parsed, to be submitted
  MemberPointer unparsed_ ABSL_GUARDED_BY(mutex_);  // its message is incoming_; the pool was full
  std::deque<MemberPointer> ready_ ABSL_GUARDED_BY(mutex_);  // with something to write, each once
  int32_t num_holds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool submitting_ ABSL_GUARDED_BY(mutex_) = false;
  bool incoming_busy_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool drained_ ABSL_GUARDED_BY(mutex_) = false;  // draining, and the moment has passed
  bool finish_called_ ABSL_GUARDED_BY(mutex_) = false;
  bool retry_due_ ABSL_GUARDED_BY(mutex_) = false;  // retry_alarm_ is set and has not fired
  std::shared_ptr<grpc::Alarm> retry_alarm_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<grpc::Alarm> drain_alarm_ ABSL_GUARDED_BY(mutex_);

  grpc::ByteBuffer incoming_bytes_;
  v1::GenerateManyRequest incoming_;
  // Being written; touched only by whoever set write_in_flight_.
  v1::GenerateManyResponse outgoing_;
  grpc::ByteBuffer outgoing_bytes_;
};

}  // namespace chorus
