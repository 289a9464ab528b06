#pragma once

#include <functional>
#include <memory>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "core/text/tokenizer.h"
#include "server/explain_response.h"
#include "server/stream_end.h"
#include "server/submission.h"
#include "server/task_pool.h"

namespace chorus {

// One Explain call: gathers the engine's events (TokenSink) and answers with one message (gRPC's
// reactor), which is made on the pool.
//
// Ownership: as TokenStream: the call holds itself until gRPC's OnDone, the engine holds it until
// after OnFinish, the pool while it makes the answer.
// Threads: the engine's worker calls the sink's methods, gRPC threads the reactions, any thread
// Submit or Reject (once, one of them). Finish is called once: by Reject, or at the end that the
// engine always gives.
class ExplainCall final : public grpc::ServerUnaryReactor,
                          public TokenSink,
                          public std::enable_shared_from_this<ExplainCall> {
 public:
  struct Options {
    const Tokenizer* tokenizer = nullptr;  // these outlive the call
    TaskPool* pool = nullptr;
    const v1::ExplainRequest* request = nullptr;  // gRPC's: until Finish
    v1::ExplainResponse* response = nullptr;
    std::function<void(const StreamEnd&)> on_end;  // once, when the engine or a refusal ended it
    std::function<void()> on_done;                 // once, last
    // Once, before the answer; must not block. May be null.
    std::function<void(const FinishSummary&)> add_trailers;
  };
  static std::shared_ptr<ExplainCall> Create(Options options);

  // Hands the request, made of Options::request.request, to the engine, or ends the call with the
  // engine's refusal.
  void Submit(Engine* engine, Request request);
  void Reject(const absl::Status& status);

  // TokenSink.
  void OnStart(const PromptSummary& summary) override;
  void OnToken(TokenEvent event) override;
  void OnFinish(const absl::Status& status, FinishSummary summary) override;

  // ServerUnaryReactor.
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit ExplainCall(Options options) : options_(std::move(options)) {}
  void Answer();

  const Options options_;
  // Set before the engine knows the call; then the engine's, and after its end the pool's.
  Explained explained_;
  RequestRecord record_;
  Submission submission_;

  absl::Mutex mutex_;
  std::shared_ptr<ExplainCall> self_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
