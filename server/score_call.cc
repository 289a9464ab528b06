#include "server/score_call.h"

#include <cstddef>

#include "server/grpc_status.h"
#include "server/request_intake.h"
#include "server/response.h"

namespace chorus {
namespace {

void FillScore(const ContinuationScore& score, const std::vector<int32_t>& token_ids,
               v1::ContinuationScore* proto) {
  proto->set_logprob(score.logprob);
  proto->set_is_greedy(score.is_greedy);
  proto->mutable_token_logprobs()->Add(score.token_logprobs.begin(), score.token_logprobs.end());
  proto->mutable_prompt_logprobs()->Add(score.prompt_logprobs.begin(), score.prompt_logprobs.end());
  proto->mutable_token_ids()->Add(token_ids.begin(), token_ids.end());
  proto->mutable_greedy_token_ids()->Add(score.greedy_token_ids.begin(),
                                         score.greedy_token_ids.end());
}

}  // namespace

std::shared_ptr<ScoreCall> ScoreCall::Create(Options options) {
  std::shared_ptr<ScoreCall> call(new ScoreCall(std::move(options)));
  absl::MutexLock lock(&call->mutex_);
  call->self_ = call;
  return call;
}

void ScoreCall::Submit(Engine* engine, Request request) {
  record_ = RecordOf(request);
  continuations_ = request.score->continuations;
  const absl::Status status = submission_.Submit(engine, std::move(request), shared_from_this());
  if (!status.ok()) Reject(status);
}

void ScoreCall::Reject(const absl::Status& status) {
  options_.on_end(StreamEnd{record_, status, FinishSummary()});
  Finish(ToGrpcStatus(status));
}

void ScoreCall::OnStart(const PromptSummary& summary) {
  FillPromptInfo(summary, record_, options_.response->mutable_prompt_info());
}

void ScoreCall::OnFinish(const absl::Status& status, FinishSummary summary) {
  options_.on_end(StreamEnd{record_, status, summary});
  if (options_.add_trailers) options_.add_trailers(summary);
  if (!status.ok()) return Finish(ToGrpcStatus(status));
  const absl::Status filled = Guarded([&] {
    for (size_t i = 0; i < summary.scores.size(); ++i) {
      FillScore(summary.scores[i], continuations_[i], options_.response->add_scores());
    }
    FillUsage(summary, options_.response->mutable_usage());
    FillTiming(summary, options_.response->mutable_timing());
    return absl::OkStatus();
  });
  Finish(ToGrpcStatus(filled));
}

void ScoreCall::OnCancel() { submission_.Cancel(); }

void ScoreCall::OnDone() {
  std::shared_ptr<ScoreCall> self;
  {
    absl::MutexLock lock(&mutex_);
    self = std::move(self_);
  }
  options_.on_done();
}

}  // namespace chorus
