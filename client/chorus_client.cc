#include "client/chorus_client.h"

#include <chrono>
#include <utility>

#include <grpcpp/alarm.h>

#include "chorus/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

#include "client/channel.h"
#include "client/grpc_error.h"
#include "client/many_call.h"
#include "core/base/status_macros.h"

namespace chorus {
namespace {

absl::Status NoLastMessage() {
  return absl::InternalError("the stream ended without its last message");
}

// One call of StartGenerate. Destroys itself when it has ended.
//
// While it waits between reads, a hold keeps gRPC from ending the call, and so this object from
// being destroyed.
class GenerateReader final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  // `detach` is called when the call has ended, before on_done.
  GenerateReader(std::shared_ptr<grpc::ClientContext> context, StreamCallbacks callbacks,
                 std::function<void()> detach)
      : context_(std::move(context)),
        callbacks_(std::move(callbacks)),
        detach_(std::move(detach)) {}

  void Start(v1::Inference::Stub& stub, const v1::GenerateRequest& request) {
    stub.async()->Generate(context_.get(), &request, this);
    StartRead(&event_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    has_finish_ = has_finish_ || event_.has_finish();
    const absl::Duration pause =
        callbacks_.on_event ? callbacks_.on_event(event_) : absl::ZeroDuration();
    if (pause <= absl::ZeroDuration()) {
      StartRead(&event_);
      return;
    }
    AddHold();
    // A new alarm each time: the last one may still be returning from its callback.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(absl::ToChronoTime(absl::Now() + pause), [this](bool) {
      StartRead(&event_);
      RemoveHold();
    });
  }

  void OnDone(const grpc::Status& status) override {
    const absl::Status end = status.ok() && !has_finish_ ? NoLastMessage() : ToAbslStatus(status);
    const std::function<void(const absl::Status&)> on_done = std::move(callbacks_.on_done);
    detach_();
    // Before on_done, which lets the owner destroy the client: the context holds the channel, and
    // a channel destroyed here, on a thread of gRPC's own, would wait for this very thread.
    delete this;
    if (on_done) on_done(end);
  }

 private:
  const std::shared_ptr<grpc::ClientContext> context_;
  StreamCallbacks callbacks_;
  const std::function<void()> detach_;
  v1::GenerateResponse event_;
  bool has_finish_ = false;
  std::unique_ptr<grpc::Alarm> alarm_;
};

}  // namespace

void Cancellation::Cancel() {
  std::shared_ptr<grpc::ClientContext> context;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    context = context_;
  }
  if (context != nullptr) context->TryCancel();
}

void Cancellation::Attach(std::shared_ptr<grpc::ClientContext> context) {
  bool is_over = false;
  {
    absl::MutexLock lock(&mutex_);
    context_ = context;
    is_over = cancelled_;
  }
  if (context != nullptr && is_over) context->TryCancel();
}

struct ChorusClient::Connection {
  std::unique_ptr<v1::Inference::Stub> stub;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
  absl::Duration deadline;
  std::string authorization;  // metadata of every call; empty: none

  void Prepare(grpc::ClientContext& context) const {
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    if (deadline == absl::InfiniteDuration()) return;
    context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  }

  // One unary call, for example Call(&Stub::Tokenize, request). `cancellation` may be null.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(
      grpc::Status (v1::Inference::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
      const Request& request, Cancellation* cancellation = nullptr) const {
    const auto context = std::make_shared<grpc::ClientContext>();
    Prepare(*context);
    if (cancellation != nullptr) cancellation->Attach(context);
    Response response;
    const grpc::Status status = (stub.get()->*method)(context.get(), request, &response);
    if (cancellation != nullptr) cancellation->Attach(nullptr);
    CHORUS_RETURN_IF_ERROR(ToAbslStatus(status));
    return response;
  }
};

ChorusClient::ChorusClient(std::unique_ptr<Connection> connection)
    : connection_(std::move(connection)) {}
ChorusClient::ChorusClient(ChorusClient&&) noexcept = default;
ChorusClient& ChorusClient::operator=(ChorusClient&&) noexcept = default;
ChorusClient::~ChorusClient() = default;

absl::StatusOr<ChorusClient> ChorusClient::Connect(const std::string& target,
                                                   const ClientOptions& options) {
  CHORUS_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                          OpenChannel(target, options));
  auto connection = std::make_unique<Connection>();
  connection->stub = v1::Inference::NewStub(channel);
  connection->health = grpc::health::v1::Health::NewStub(channel);
  connection->deadline = options.deadline;
  if (!options.token.empty()) connection->authorization = "Bearer " + options.token;
  return ChorusClient(std::move(connection));
}

absl::StatusOr<v1::FinishInfo> ChorusClient::Generate(const v1::GenerateRequest& request,
                                                      const EventCallback& on_event,
                                                      Cancellation* cancellation) {
  const auto context = std::make_shared<grpc::ClientContext>();
  connection_->Prepare(*context);
  if (cancellation != nullptr) cancellation->Attach(context);
  const auto reader = connection_->stub->Generate(context.get(), request);
  v1::FinishInfo finish;
  bool has_finish = false;
  v1::GenerateResponse event;
  while (reader->Read(&event)) {
    if (on_event) on_event(event);
    if (event.has_finish()) {
      has_finish = true;
      finish = std::move(*event.mutable_finish());
    }
  }
  const grpc::Status status = reader->Finish();
  if (cancellation != nullptr) cancellation->Attach(nullptr);
  CHORUS_RETURN_IF_ERROR(ToAbslStatus(status));
  if (!has_finish) return NoLastMessage();
  return finish;
}

void ChorusClient::StartGenerate(const v1::GenerateRequest& request, StreamCallbacks callbacks,
                                 Cancellation* cancellation) {
  auto context = std::make_shared<grpc::ClientContext>();
  connection_->Prepare(*context);
  const auto detach = [cancellation] {
    if (cancellation != nullptr) cancellation->Attach(nullptr);
  };
  if (cancellation != nullptr) cancellation->Attach(context);
  auto* reader = new GenerateReader(std::move(context), std::move(callbacks), detach);
  reader->Start(*connection_->stub, request);
}

absl::Status ChorusClient::GenerateMany(const NextRequest& next, const ManyCallback& on_event,
                                        int32_t window, Cancellation* cancellation) {
  const auto context = std::make_shared<grpc::ClientContext>();
  connection_->Prepare(*context);
  if (cancellation != nullptr) cancellation->Attach(context);
  ManyCall call(*connection_->stub, *context, window);
  const absl::Status status = call.Run(next, on_event);
  if (cancellation != nullptr) cancellation->Attach(nullptr);
  return status;
}

absl::StatusOr<v1::ExplainResponse> ChorusClient::Explain(const v1::ExplainRequest& request,
                                                          Cancellation* cancellation) {
  return connection_->Call(&v1::Inference::Stub::Explain, request, cancellation);
}

absl::StatusOr<v1::ScoreResponse> ChorusClient::Score(const v1::ScoreRequest& request,
                                                      Cancellation* cancellation) {
  return connection_->Call(&v1::Inference::Stub::Score, request, cancellation);
}

absl::StatusOr<v1::TokenizeResponse> ChorusClient::Tokenize(const std::string& text,
                                                            bool recognize_special) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_recognize_special(recognize_special);
  return connection_->Call(&v1::Inference::Stub::Tokenize, request);
}

absl::StatusOr<std::string> ChorusClient::Detokenize(const std::vector<int32_t>& token_ids,
                                                     bool skip_special) {
  v1::DetokenizeRequest request;
  request.mutable_token_ids()->Assign(token_ids.begin(), token_ids.end());
  request.set_skip_special(skip_special);
  CHORUS_ASSIGN_OR_RETURN(v1::DetokenizeResponse response,
                          connection_->Call(&v1::Inference::Stub::Detokenize, request));
  return std::move(*response.mutable_text());
}

absl::StatusOr<v1::GetModelInfoResponse> ChorusClient::GetModelInfo() {
  return connection_->Call(&v1::Inference::Stub::GetModelInfo, v1::GetModelInfoRequest());
}

absl::Status ChorusClient::CheckHealth(const std::string& service) {
  using grpc::health::v1::HealthCheckResponse;
  const std::string subject = service.empty() ? "the server" : service;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::ClientContext context;
  connection_->Prepare(context);
  HealthCheckResponse response;
  const grpc::Status status = connection_->health->Check(&context, request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
    return absl::NotFoundError(absl::StrCat("the server has no service '", service, "'"));
  }
  CHORUS_RETURN_IF_ERROR(ToAbslStatus(status));
  if (response.status() == HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      subject, " is ", HealthCheckResponse::ServingStatus_Name(response.status())));
}

}  // namespace chorus
