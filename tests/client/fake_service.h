#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/server.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "chorus/v1/inference.grpc.pb.h"

namespace chorus {

// A server in this process, on a free loopback port, that says what the test told it to. It keeps
// the requests. For tests of the client only: it knows no model.
class FakeService final : public v1::Inference::Service {
 public:
  FakeService();
  ~FakeService() override;

  const std::string& target() const { return target_; }

  // Set before the first call.
  std::vector<v1::GenerateResponse> events;  // what Generate streams
  grpc::Status status;                       // what Generate ends with
  bool waits_for_cancel = false;             // Generate goes on until the caller ends the call
  int fails_every = 0;  // every n-th Generate ends at once with UNAVAILABLE; 0 for none

  v1::ExplainResponse explanation;

  v1::ScoreResponse scores;  // the same for every request

  std::vector<v1::ScoreRequest> score_requests() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<v1::ExplainRequest> explain_requests() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The header of the last GetModelInfo; empty if there was none.
  std::string authorization() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Requests of Generate so far, in order.
  std::vector<v1::GenerateRequest> requests() const ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  // Answers every request with `events` under its id, but one whose question is "bad" with
  // INVALID_ARGUMENT, and one whose question is "lost" not at all; ends with `status`.
  grpc::Status GenerateMany(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::GenerateManyResponse, v1::GenerateManyRequest>* stream) override;
  // Answers with `explanation`, or `status` if that is an error.
  grpc::Status Explain(grpc::ServerContext* context, const v1::ExplainRequest* request,
                       v1::ExplainResponse* response) override;
  // Answers with `scores`, or `status` if that is an error.
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  // One token a byte, whose id is the byte; 256 for a recognised "<s>". A byte that is not ASCII is
  // detokenised as "?".
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status GetModelInfo(grpc::ServerContext* context, const v1::GetModelInfoRequest* request,
                            v1::GetModelInfoResponse* response) override;

 private:
  mutable absl::Mutex mutex_;
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ScoreRequest> score_requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::ExplainRequest> explain_requests_ ABSL_GUARDED_BY(mutex_);
  std::string authorization_ ABSL_GUARDED_BY(mutex_);
  std::string target_;
  std::unique_ptr<grpc::Server> server_;
};

// The events of a plain answer: prompt_info, one chunk a text, finish.
std::vector<v1::GenerateResponse> PlainAnswer(const std::vector<std::string>& chunks);

// An explanation of two prompts of two tokens each between one of prefix and one of suffix, and one
// generated: 2 layers, 2 heads, 1 step. Logits of the units are, in layer 0 6 1 2 3 of head 0 and
// 8 1 2 3 of head 1, in layer 1 2 2 2 2 of both; mass is a quarter each; generated tokens are not
// seen yet.
v1::ExplainResponse SmallExplanation();

// An INVALID_ARGUMENT with a google.rpc.BadRequest detail for one field.
grpc::Status BadField(const std::string& message, const std::string& field,
                      const std::string& description);

}  // namespace chorus
