#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.grpc.pb.h"

#include "core/engine/engine.h"
#include "core/engine/engine_observer.h"
#include "core/text/tokenizer.h"
#include "server/generate_many_stream.h"
#include "server/logging.h"
#include "server/parse_request.h"
#include "server/request_intake.h"
#include "server/stream_end.h"
#include "server/task_pool.h"

namespace chorus {

// v1::Inference::CallbackService, but that GenerateMany is given its messages as bytes: one that
// cannot be read is then one request's error and not the end of all (see GenerateManyStream).
using InferenceMethods =
    v1::Inference::WithCallbackMethod_Generate<v1::Inference::WithRawCallbackMethod_GenerateMany<
        v1::Inference::WithCallbackMethod_Score<v1::Inference::WithCallbackMethod_Explain<
            v1::Inference::WithCallbackMethod_Tokenize<v1::Inference::WithCallbackMethod_Detokenize<
                v1::Inference::WithCallbackMethod_GetModelInfo<v1::Inference::Service>>>>>>>;

// chorus.v1.Inference. Reactions do no more than cheap checks: short texts are tokenised in place,
// long ones on the pool, and all model work is the engine's. Thread-safe; no exception leaves a
// handler.
class InferenceService final : public InferenceMethods {
 public:
  // All outlive the service.
  struct Dependencies {
    Engine* engine = nullptr;
    const Tokenizer* tokenizer = nullptr;
    const RequestParser* parser = nullptr;
    EngineObserver* observer = nullptr;  // told of requests refused before the engine saw them
    const Logger* logger = nullptr;
    TaskPool* pool = nullptr;
    bool log_prompts = false;
    int32_t num_workers = 1;
    int32_t stream_buffer_events = 64;
    int32_t max_stream_requests = 128;
  };
  explicit InferenceService(const Dependencies& dependencies);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GenerateMany(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

  // GenerateMany calls, open ones and new ones, take no more requests and end soon after those that
  // run in them. (Generate calls are refused by the engine once that drains.)
  void StartDraining();

  // Waits until no Generate, GenerateMany, Score or Explain call is open; false if `timeout` passed
  // first.
  bool WaitUntilIdle(absl::Duration timeout);

 private:
  // What logs how requests of this call of `rpc` have ended.
  std::function<void(const StreamEnd&)> LogEnds(std::string_view rpc,
                                                grpc::CallbackServerContext* context) const;
  // A call opens; what it returns is to be called when it has ended.
  std::function<void()> OpenStream();
  // Parses, here or on the pool, then Call::Submit or Call::Reject.
  template <typename Proto, typename Call>
  void ParseAndSubmit(const Proto& request, absl::Time deadline,
                      const std::shared_ptr<Call>& call);
  // Runs `work` of a call of `rpc` here if `bytes` is small, else on the pool; its Status ends the
  // call.
  grpc::ServerUnaryReactor* RunUnary(std::string_view rpc, grpc::CallbackServerContext* context,
                                     size_t bytes, const std::function<absl::Status()>& work);

  const Dependencies dependencies_;
  RequestIntake intake_;

  absl::Mutex streams_mutex_;
  int32_t num_streams_ ABSL_GUARDED_BY(streams_mutex_) = 0;  // calls that are open
  // Of these, the GenerateMany calls, by number.
  absl::flat_hash_map<int64_t, std::weak_ptr<GenerateManyStream>> many_streams_
      ABSL_GUARDED_BY(streams_mutex_);
  int64_t next_many_stream_ ABSL_GUARDED_BY(streams_mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(streams_mutex_) = false;
};

}  // namespace chorus
