#include "server/generate_many_stream.h"

#include <utility>
#include <variant>

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "server/grpc_status.h"
#include "server/parse_request.h"
#include "server/response.h"

namespace chorus {
namespace {

// How soon a request that found no place is tried again if none of its stream's own moves before.
constexpr absl::Duration kRetryDelay = absl::Milliseconds(10);
// For how long a draining stream still answers what comes, so that a caller who is about to
// half-close gets an answer to everything it has sent.
constexpr absl::Duration kDrainGrace = absl::Milliseconds(500);

absl::Status DrainingError() {
  return absl::UnavailableError("the server is draining and takes no new requests");
}

// The id to answer under: the caller's, cut before a character that would make it too long. In a
// message that could not be read it need not be UTF-8: question marks stand for what is not ASCII.
std::string AnswerId(std::string id, bool is_readable) {
  for (char& c : id) {
    if (!is_readable && static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  if (id.size() <= kMaxRequestIdBytes) return id;
  size_t length = kMaxRequestIdBytes;
  while (length > 0 && (static_cast<unsigned char>(id[length]) & 0xC0) == 0x80) --length;
  return id.substr(0, length);
}

// Calls `function` on the stream after `delay`, on a thread of gRPC, if it then still exists.
std::shared_ptr<grpc::Alarm> CallLater(std::weak_ptr<GenerateManyStream> stream,
                                       absl::Duration delay,
                                       std::function<void(GenerateManyStream&)> function) {
  auto alarm = std::make_shared<grpc::Alarm>();
  alarm->Set(absl::ToChronoTime(absl::Now() + delay),
             [stream = std::move(stream), function = std::move(function)](bool) {
               if (const auto alive = stream.lock()) function(*alive);
             });
  return alarm;
}

}  // namespace

// One request of the stream. The members below the line are guarded by the stream's lock.
class GenerateManyStream::Member final : public TokenSink,
                                         public std::enable_shared_from_this<Member> {
 public:
  Member(std::shared_ptr<GenerateManyStream> owner, std::string answer_id)
      : stream(std::move(owner)), id(std::move(answer_id)) {}

  void OnStart(const PromptSummary& summary) override {
    stream->Push(*this, [&](EventBuffer& buffer) { buffer.AddStart(summary); });
  }
  void OnToken(TokenEvent event) override {
    stream->Push(*this, [&](EventBuffer& buffer) { buffer.AddToken(std::move(event)); });
  }
  void OnFinish(const absl::Status& status, FinishSummary summary) override {
    stream->End(*this, status, std::move(summary));
  }
  bool WantsMore() const override { return stream->WantsMore(*this); }

  const std::shared_ptr<GenerateManyStream> stream;
  const std::string id;
  // Set before the engine knows the member; const afterwards, but that the request goes then.
  RequestRecord record;
  std::optional<Request> request;

  // ---- Guarded by stream->mutex_.
  EventBuffer events;
  std::optional<absl::Status> error;  // behind the events
  std::optional<RequestHandle> handle;
  bool is_ready = false;  // stands in ready_
  bool owns_id = false;   // stands in by_id_
};

std::shared_ptr<GenerateManyStream> GenerateManyStream::Create(Options options) {
  std::shared_ptr<GenerateManyStream> stream(new GenerateManyStream(std::move(options)));
  {
    absl::MutexLock lock(&stream->mutex_);
    stream->self_ = stream;
  }
  stream->ReadMore();
  return stream;
}

// ---- Reading

void GenerateManyStream::ReadMore() {
  {
    absl::MutexLock lock(&mutex_);
    if (incoming_busy_ || half_closed_ || abandoned_ || drained_ || finish_called_) return;
    if (num_open_ >= options_.max_requests || !waiting_.empty()) return;
    incoming_busy_ = true;
    ++num_holds_;
  }
  StartRead(&incoming_bytes_);
  Release();
}

void GenerateManyStream::OnReadDone(bool ok) {
  if (!ok) {
    {
      absl::MutexLock lock(&mutex_);
      half_closed_ = true;
    }
    return Advance();
  }
  const bool is_readable = ParseIncomingBytes();
  const auto member =
      std::make_shared<Member>(shared_from_this(), AnswerId(incoming_.request_id(), is_readable));
  if (const absl::Status status = Register(member, is_readable); status.ok()) {
    // The outer id counts; the parser checks its length and spelling.
    incoming_.mutable_request()->set_request_id(incoming_.request_id());
    return ParseIncoming(member);
  } else {
    options_.observer->OnRejected(absl::IsUnavailable(status) ? RejectReason::kDraining
                                                              : RejectReason::kInvalid);
    End(*member, status, FinishSummary());
  }
  {
    absl::MutexLock lock(&mutex_);
    incoming_busy_ = false;
  }
  ReadMore();
}

bool GenerateManyStream::ParseIncomingBytes() {
  incoming_.Clear();
  grpc::ProtoBufferReader reader(&incoming_bytes_);
  const bool is_readable = reader.status().ok() && incoming_.ParseFromZeroCopyStream(&reader);
  incoming_bytes_.Clear();
  return is_readable;
}

absl::Status GenerateManyStream::Register(const MemberPointer& member, bool is_readable) {
  absl::MutexLock lock(&mutex_);
  ++num_open_;
  if (draining_) return DrainingError();
  if (!is_readable) {
    return FieldError("request", "the message", "must be a GenerateManyRequest in valid UTF-8");
  }
  const std::string& id = incoming_.request_id();
  if (id.empty()) return FieldError("request_id", "empty", "every request needs an id of its own");
  if (id.size() > kMaxRequestIdBytes) return absl::OkStatus();  // the parser's to refuse
  member->owns_id = by_id_.try_emplace(id, member).second;
  if (member->owns_id) return absl::OkStatus();
  return FieldError("request_id", id, "must not be that of a request still running on this stream");
}

void GenerateManyStream::ParseIncoming(const MemberPointer& member) {
  const bool taken = options_.intake->Parse(incoming_.request(), options_.deadline,
                                            [member](absl::StatusOr<Request> request) {
                                              member->stream->OnParsed(member, std::move(request));
                                            });
  bool drop = false;
  {
    absl::MutexLock lock(&mutex_);
    drop = !taken && (abandoned_ || draining_);
    if (taken || drop) {
      incoming_busy_ = false;
    } else {
      unparsed_ = member;
    }
  }
  if (drop) EndUnsubmitted(*member);
  taken || drop ? ReadMore() : RetryLater();
}

void GenerateManyStream::OnParsed(const MemberPointer& member, absl::StatusOr<Request> request) {
  if (!request.ok()) return End(*member, request.status(), FinishSummary());
  member->record = RecordOf(*request);
  member->request = *std::move(request);
  bool drop = false;
  {
    absl::MutexLock lock(&mutex_);
    drop = abandoned_ || draining_;
    if (!drop) waiting_.push_back(member);
  }
  drop ? EndUnsubmitted(*member) : SubmitWaiting();
}

// ---- Submitting

void GenerateManyStream::SubmitWaiting() {
  while (true) {
    MemberPointer member;
    {
      absl::MutexLock lock(&mutex_);
      if (submitting_ || waiting_.empty()) break;  // whoever submits looks again
      submitting_ = true;
      member = std::move(waiting_.front());
      waiting_.pop_front();
    }
    const bool taken = TrySubmit(member);
    bool drop = false;
    {
      absl::MutexLock lock(&mutex_);
      submitting_ = false;
      drop = !taken && (abandoned_ || draining_);
      if (!taken && !drop) waiting_.push_front(member);
    }
    if (drop) EndUnsubmitted(*member);
    if (!taken && !drop) return RetryLater();
  }
  ReadMore();
}

// False, and nothing is done, if the engine's queue is full.
bool GenerateManyStream::TrySubmit(const MemberPointer& member) {
  Engine& engine = *options_.engine;
  // Asked first, so that a stream that waits is not counted as refused with every look.
  if (engine.is_queue_full()) return false;
  absl::StatusOr<RequestHandle> handle = RequestHandle();
  const absl::Status guarded = Guarded([&] {
    handle = engine.Submit(*member->request, member);  // a copy: a refused one is tried again
    return absl::OkStatus();
  });
  if (guarded.ok() && absl::IsResourceExhausted(handle.status())) return false;
  member->request.reset();
  if (!guarded.ok() || !handle.ok()) {
    End(*member, guarded.ok() ? handle.status() : guarded, FinishSummary());
    return true;
  }
  bool gone = false;
  {
    absl::MutexLock lock(&mutex_);
    member->handle = *handle;
    gone = abandoned_;
  }
  if (gone) CancelUnlessLate(engine, *handle, member->record.deadline);
  return true;
}

// Ends a request that the engine has not seen, as the stream is abandoned or draining.
void GenerateManyStream::EndUnsubmitted(Member& member) {
  bool gone = false;
  {
    absl::MutexLock lock(&mutex_);
    gone = abandoned_;
  }
  if (!gone) options_.observer->OnRejected(RejectReason::kDraining);
  End(member, gone ? absl::CancelledError("the caller is gone") : DrainingError(), FinishSummary());
}

void GenerateManyStream::RetryLater() {
  {
    absl::MutexLock lock(&mutex_);
    if (retry_due_ || abandoned_) return;
    retry_due_ = true;
  }
  std::shared_ptr<grpc::Alarm> alarm =
      CallLater(weak_from_this(), kRetryDelay, [](GenerateManyStream& stream) { stream.Retry(); });
  absl::MutexLock lock(&mutex_);
  retry_alarm_.swap(alarm);
}

void GenerateManyStream::Retry() {
  MemberPointer unparsed;
  {
    absl::MutexLock lock(&mutex_);
    retry_due_ = false;
    if (finish_called_) return;
    ++num_holds_;
    unparsed = std::exchange(unparsed_, nullptr);
  }
  if (unparsed != nullptr) ParseIncoming(unparsed);
  SubmitWaiting();
  Release();
}

void GenerateManyStream::StartDraining() {
  std::deque<MemberPointer> refused;
  {
    absl::MutexLock lock(&mutex_);
    if (draining_ || finish_called_) return;
    draining_ = true;
    refused.swap(waiting_);
    if (unparsed_ != nullptr) {
      refused.push_back(std::exchange(unparsed_, nullptr));
      incoming_busy_ = false;
    }
  }
  for (const MemberPointer& member : refused) EndUnsubmitted(*member);
  ReadMore();
  auto alarm = CallLater(weak_from_this(), kDrainGrace, [](GenerateManyStream& stream) {
    {
      absl::MutexLock lock(&stream.mutex_);
      stream.drained_ = true;
    }
    stream.Advance();
  });
  absl::MutexLock lock(&mutex_);
  drain_alarm_.swap(alarm);
}

// ---- Writing

void GenerateManyStream::Push(Member& member, const std::function<void(EventBuffer&)>& add) {
  {
    absl::MutexLock lock(&mutex_);
    if (abandoned_) return;
    add(member.events);
    MarkReady(member);
    if (write_in_flight_) return;
  }
  Advance();
}

void GenerateManyStream::End(Member& member, const absl::Status& status, FinishSummary summary) {
  if (options_.on_end) options_.on_end(StreamEnd{member.record, status, summary});
  {
    absl::MutexLock lock(&mutex_);
    if (abandoned_) return;
    if (status.ok()) {
      member.events.AddFinish(std::move(summary));
    } else {
      member.error = status;
    }
    MarkReady(member);
  }
  Advance();
}

bool GenerateManyStream::WantsMore(const Member& member) const {
  absl::MutexLock lock(&mutex_);
  // Nobody reads any more: the engine is not to wait, but to find the cancellation.
  return abandoned_ || member.events.num_waiting() < options_.max_buffered_events;
}

void GenerateManyStream::MarkReady(Member& member) {
  if (std::exchange(member.is_ready, true)) return;
  ready_.push_back(member.shared_from_this());
}

GenerateManyStream::MemberPointer GenerateManyStream::TakeNext(std::optional<StreamEvent>* event,
                                                               absl::Status* error) {
  MemberPointer member = std::move(ready_.front());
  ready_.pop_front();
  bool last = true;
  if (member->events.empty()) {
    *error = *std::exchange(member->error, std::nullopt);
  } else {
    *event = member->events.TakeNext();
    last = std::holds_alternative<FinishSummary>(**event);
  }
  if (last) {
    --num_open_;
    if (member->owns_id) by_id_.erase(member->id);
  }
  member->is_ready = !member->events.empty() || member->error.has_value();
  if (member->is_ready) ready_.push_back(member);
  return member;
}

std::optional<grpc::Status> GenerateManyStream::FinalStatus() const {
  if (num_holds_ > 0) return std::nullopt;
  if (abandoned_) return grpc::Status(grpc::StatusCode::CANCELLED, "the caller is gone");
  if (num_open_ > 0) return std::nullopt;
  if (half_closed_) return grpc::Status::OK;
  if (!drained_) return std::nullopt;
  return grpc::Status(grpc::StatusCode::UNAVAILABLE,
                      "the server is draining; requests without an answer have not run");
}

void GenerateManyStream::Advance() {
  MemberPointer member;
  std::optional<StreamEvent> event;
  absl::Status error;
  std::optional<grpc::Status> final_status;
  bool more = false;
  {
    absl::MutexLock lock(&mutex_);
    if (write_in_flight_ || finish_called_) return;
    if (abandoned_ || ready_.empty()) {
      final_status = FinalStatus();
      if (!final_status.has_value()) return;
      finish_called_ = true;
    } else {
      member = TakeNext(&event, &error);
      write_in_flight_ = true;
      more = !ready_.empty();
    }
  }
  if (final_status.has_value()) return Finish(*std::move(final_status));
  outgoing_.set_request_id(member->id);
  if (event.has_value()) {
    FillResponse(*std::move(event), member->record, *options_.tokenizer,
                 outgoing_.mutable_response());
  } else {
    *outgoing_.mutable_error() = ToRpcStatus(error);
  }
  grpc::WriteOptions options;
  // What waits already is written as soon as this is done: gRPC may send many in one go.
  if (more) options.set_buffer_hint();
  outgoing_bytes_.Clear();
  bool own_buffer = false;
  CHECK((grpc::GenericSerialize<grpc::ProtoBufferWriter, v1::GenerateManyResponse>(
             outgoing_, &outgoing_bytes_, &own_buffer)
             .ok()));
  StartWrite(&outgoing_bytes_, options);
  ReadMore();
}

void GenerateManyStream::Release() {
  {
    absl::MutexLock lock(&mutex_);
    --num_holds_;
    if (!FinalStatus().has_value()) return;
  }
  Advance();
}

void GenerateManyStream::OnWriteDone(bool ok) {
  bool waiting = false;
  {
    absl::MutexLock lock(&mutex_);
    write_in_flight_ = false;
    waiting = !waiting_.empty();
  }
  if (!ok) return Abandon();
  Advance();
  if (waiting) SubmitWaiting();
}

void GenerateManyStream::Abandon() {
  std::vector<std::pair<RequestHandle, absl::Time>> running;
  std::deque<MemberPointer> unsubmitted;
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(abandoned_, true)) {
      for (const auto& [id, member] : by_id_) {
        if (member->handle.has_value()) {
          running.emplace_back(*member->handle, member->record.deadline);
        }
        member->events.Clear();
      }
      unsubmitted.swap(waiting_);
      if (unparsed_ != nullptr) unsubmitted.push_back(std::exchange(unparsed_, nullptr));
      ready_.clear();
      by_id_.clear();
    }
  }
  for (const auto& [handle, deadline] : running) {
    CancelUnlessLate(*options_.engine, handle, deadline);
  }
  for (const MemberPointer& member : unsubmitted) EndUnsubmitted(*member);
  Advance();
}

void GenerateManyStream::OnCancel() { Abandon(); }

void GenerateManyStream::OnDone() {
  std::shared_ptr<GenerateManyStream> self;
  std::deque<MemberPointer> ready;
  {
    absl::MutexLock lock(&mutex_);
    abandoned_ = true;  // a request read while the call was ending is answered by nobody
    ready.swap(ready_);
    by_id_.clear();
    self = std::move(self_);
  }
  if (options_.on_done) options_.on_done();
}

}  // namespace chorus
