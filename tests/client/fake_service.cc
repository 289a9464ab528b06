#include "tests/client/fake_service.h"

#include <google/protobuf/text_format.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "core/base/check.h"

namespace chorus {

FakeService::FakeService() {
  int port = 0;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
  target_ = absl::StrCat("127.0.0.1:", port);
}

FakeService::~FakeService() { server_->Shutdown(); }

std::vector<v1::GenerateRequest> FakeService::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

std::vector<v1::ScoreRequest> FakeService::score_requests() const {
  absl::MutexLock lock(&mutex_);
  return score_requests_;
}

std::vector<v1::ExplainRequest> FakeService::explain_requests() const {
  absl::MutexLock lock(&mutex_);
  return explain_requests_;
}

std::string FakeService::authorization() const {
  absl::MutexLock lock(&mutex_);
  return authorization_;
}

grpc::Status FakeService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                   grpc::ServerWriter<v1::GenerateResponse>* writer) {
  {
    absl::MutexLock lock(&mutex_);
    requests_.push_back(*request);
    if (fails_every > 0 && requests_.size() % fails_every == 0) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "fails as told");
    }
  }
  for (const v1::GenerateResponse& event : events) writer->Write(event);
  while (waits_for_cancel && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
  return status;
}

grpc::Status FakeService::GenerateMany(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::GenerateManyResponse, v1::GenerateManyRequest>* stream) {
  v1::GenerateManyRequest message;
  while (stream->Read(&message)) {
    {
      absl::MutexLock lock(&mutex_);
      requests_.push_back(message.request());
    }
    const std::string& question = message.request().prompt().text().question();
    if (question == "lost") continue;
    v1::GenerateManyResponse response;
    response.set_request_id(message.request_id());
    if (question == "bad") {
      const grpc::Status bad = BadField("bad request", "sampling.top_p", "1.5 must be in (0, 1]");
      CHECK(response.mutable_error()->ParseFromString(bad.error_details()));
      stream->Write(response);
      continue;
    }
    for (const v1::GenerateResponse& event : events) {
      *response.mutable_response() = event;
      stream->Write(response);
    }
  }
  while (waits_for_cancel && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
  return status;
}

grpc::Status FakeService::Explain(grpc::ServerContext* context,
                                  const v1::ExplainRequest* request,
                                  v1::ExplainResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    explain_requests_.push_back(*request);
  }
  while (waits_for_cancel && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
  *response = explanation;
  return status;
}

grpc::Status FakeService::Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                                v1::ScoreResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    score_requests_.push_back(*request);
  }
  while (waits_for_cancel && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
  *response = scores;
  return status;
}

grpc::Status FakeService::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                   v1::TokenizeResponse* response) {
  if (request->recognize_special() && request->text() == "<s>") {
    response->add_token_ids(256);
    response->add_tokens("<s>");
    return grpc::Status::OK;
  }
  for (const char c : request->text()) {
    response->add_token_ids(static_cast<unsigned char>(c));
    response->add_tokens(std::string(1, c));
  }
  return grpc::Status::OK;
}

grpc::Status FakeService::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                     v1::DetokenizeResponse* response) {
  for (const int32_t id : request->token_ids()) {
    if (id < 0 || id > 256) return BadField("bad token id", "token_ids", "must be in [0, 257)");
    if (id < 256) response->mutable_text()->push_back(static_cast<char>(id < 128 ? id : '?'));
    if (id == 256 && !request->skip_special()) response->mutable_text()->append("<s>");
  }
  return grpc::Status::OK;
}

grpc::Status FakeService::GetModelInfo(grpc::ServerContext* context, const v1::GetModelInfoRequest*,
                                       v1::GetModelInfoResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    authorization_.clear();
    const auto header = context->client_metadata().find("authorization");
    if (header != context->client_metadata().end()) {
      authorization_.assign(header->second.data(), header->second.size());
    }
  }
  response->set_name("fake");
  response->set_dtype("float32");
  response->set_vocab_size(257);
  response->set_template_(v1::TEMPLATE_CHATML);
  response->add_eos_token_ids(2);
  return grpc::Status::OK;
}

std::vector<v1::GenerateResponse> PlainAnswer(const std::vector<std::string>& chunks) {
  std::vector<v1::GenerateResponse> events(1);
  v1::PromptInfo& info = *events[0].mutable_prompt_info();
  info.set_request_id("r1");
  info.set_seed(18446744073709551615u);
  info.add_segment_tokens(5);
  info.add_segment_tokens(6);
  info.set_prompt_tokens(14);
  v1::FinishInfo finish;
  for (const std::string& text : chunks) {
    const int32_t id = static_cast<int32_t>(events.size());
    v1::TokenChunk& chunk = *events.emplace_back().mutable_chunk();
    chunk.set_text(text);
    chunk.add_token_ids(id);
    chunk.add_logprobs(-0.5f);
    finish.mutable_text()->append(text);
    finish.add_token_ids(id);
  }
  finish.set_reason(v1::FINISH_REASON_EOS);
  finish.mutable_usage()->set_prompt_tokens(14);
  finish.mutable_usage()->set_generated_tokens(static_cast<int32_t>(chunks.size()));
  finish.mutable_timing()->set_first_token_seconds(0.25);
  finish.mutable_timing()->set_total_seconds(1.5);
  *events.emplace_back().mutable_finish() = finish;
  return events;
}

v1::ExplainResponse SmallExplanation() {
  constexpr char kText[] = R"(
    prompt_info { request_id: "r1" segment_tokens: [2, 2] prompt_tokens: 6 }
    finish { reason: FINISH_REASON_EOS text: "Paris" token_ids: 7 usage { generated_tokens: 1 } }
    layout {
      token_ids: [1, 2, 3, 4, 5, 6, 7] tokens: ["<s>", "Na", "me", "W", "ho", "?", "Paris"]
      positions: [0, 1, 2, 1, 2, 3, 4] prefix_length: 1 original_length: 5 prompt_length: 6 length: 7
      segments { begin: 1 end: 3 } segments { begin: 3 end: 5 } prompt_indexes: [1, 0]
    }
    mask { allowed: 22 total: 49 ratio: 0.44897959183673469 }
    mask_runs { rows { end: 1 } keys { end: 1 } }
    mask_runs { rows { begin: 1 end: 3 } keys { end: 1 } keys { begin: 1 end: 3 } }
    mask_runs { rows { begin: 3 end: 5 } keys { end: 1 } keys { begin: 3 end: 5 } }
    mask_runs { rows { begin: 5 end: 7 } keys { end: 7 } }
    units { kind: UNIT_KIND_PREFIX num_keys: 1 }
    units { kind: UNIT_KIND_SEGMENT prompt_index: 0 num_keys: 2 }
    units { kind: UNIT_KIND_SEGMENT prompt_index: 1 num_keys: 2 }
    units { kind: UNIT_KIND_SUFFIX num_keys: 1 }
    units { kind: UNIT_KIND_GENERATED num_keys: 1 }
    steps: 0 heads: [0, 4]
    layers { logits: [6, 1, 2, 3, nan, 8, 1, 2, 3, nan]
             mass: [0.25, 0.25, 0.25, 0.25, 0, 0.25, 0.25, 0.25, 0.25, 0] }
    layers { layer: 9 logits: [2, 2, 2, 2, nan, 2, 2, 2, 2, nan]
             mass: [0.25, 0.25, 0.25, 0.25, 0, 0.25, 0.25, 0.25, 0.25, 0] }
  )";
  v1::ExplainResponse response;
  CHECK(google::protobuf::TextFormat::ParseFromString(kText, &response));
  return response;
}

grpc::Status BadField(const std::string& message, const std::string& field,
                      const std::string& description) {
  google::rpc::BadRequest bad_request;
  auto& violation = *bad_request.add_field_violations();
  violation.set_field(field);
  violation.set_description(description);
  google::rpc::Status details;
  details.set_code(grpc::StatusCode::INVALID_ARGUMENT);
  details.set_message(message);
  details.add_details()->PackFrom(bad_request);
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, message, details.SerializeAsString());
}

}  // namespace chorus
