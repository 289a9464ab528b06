#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include "chorus/v1/inference.grpc.pb.h"

#include "server/config.h"
#include "server/logging.h"
#include "server/server.h"
#include "tests/support/fake_model_runner.h"

namespace chorus {

// The tiny golden model's tokenizer (300 ids, byte-level, ChatML) and text configuration.
const Tokenizer& TinyTokenizer();
TextConfig TinyTextConfig();

// A real server on a free loopback port, in this process, on fake runners.
class TestServer {
 public:
  explicit TestServer(FakeModelOptions model = {},
                      const std::function<void(ServerConfig*)>& change = nullptr);

  struct Answer {
    grpc::Status status;
    std::vector<v1::GenerateResponse> events;
    const v1::FinishInfo& finish() const { return events.back().finish(); }
  };
  Answer Ask(const v1::GenerateRequest& request);

  v1::Inference::Stub& stub() { return *stub_; }
  const std::shared_ptr<grpc::Channel>& channel() { return channel_; }
  Server& server() { return *server_; }

  // Sum of all series of a counter, gauge or histogram's count whose labels include `label`
  // ("name=value"; empty: any).
  double Metric(const std::string& name, const std::string& label = "");

 private:
  Logger logger_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

// A call of any method by name, with messages as bytes: for services whose generated code Debian
// does not ship (health, reflection). Blocking; one thread.
class RawCall {
 public:
  RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();
  void Write(const std::string& message);
  std::optional<std::string> Read();  // nullopt: the stream has ended
  grpc::Status Finish();
  void Cancel() { context_.TryCancel(); }

 private:
  bool Next();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

// One question with paraphrases, `max_new_tokens` tokens whatever the model says.
v1::GenerateRequest SimpleGenerateRequest(int max_new_tokens);

// The field that a refusal's BadRequest detail names; "" if it has not just one.
std::string FieldOf(const grpc::Status& status);

// Waits until `condition` holds, looking often. CTest's timeout is the only limit.
void WaitUntil(const std::function<bool()>& condition);

// Waits until at least one step has run and no further one does: all requests are paused or ended.
void WaitUntilAtRest(const std::atomic<int64_t>& num_steps);

}  // namespace chorus
