#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <grpcpp/support/server_callback.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "server/stream_end.h"
#include "server/submission.h"

namespace chorus {

// One Score call: takes the engine's events (TokenSink) and answers with one message (gRPC's
// reactor).
//
// Ownership: as TokenStream: the call holds itself until gRPC's OnDone, the engine holds it until
// after OnFinish.
// Threads: the engine's worker calls the sink's methods, gRPC threads the reactions, any thread
// Submit or Reject (once, one of them). Finish is called once: by Reject, or at the end that the
// engine always gives.
class ScoreCall final : public grpc::ServerUnaryReactor,
                        public TokenSink,
                        public std::enable_shared_from_this<ScoreCall> {
 public:
  struct Options {
    v1::ScoreResponse* response = nullptr;         // gRPC's: until Finish
    std::function<void(const StreamEnd&)> on_end;  // once, when the engine or a refusal ended it
    std::function<void()> on_done;                 // once, last
    // Once, before the answer; must not block. May be null.
    std::function<void(const FinishSummary&)> add_trailers;
  };
  static std::shared_ptr<ScoreCall> Create(Options options);

  // Hands the request to the engine, or ends the call with the engine's refusal. REQUIRES: it
  // scores.
  void Submit(Engine* engine, Request request);
  void Reject(const absl::Status& status);

  // TokenSink.
  void OnStart(const PromptSummary& summary) override;
  void OnToken(TokenEvent event) override {}
  void OnFinish(const absl::Status& status, FinishSummary summary) override;

  // ServerUnaryReactor.
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit ScoreCall(Options options) : options_(std::move(options)) {}

  const Options options_;
  // Set before the engine knows the call; then the engine's.
  RequestRecord record_;
  std::vector<std::vector<int32_t>> continuations_;
  Submission submission_;

  absl::Mutex mutex_;
  std::shared_ptr<ScoreCall> self_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace chorus
