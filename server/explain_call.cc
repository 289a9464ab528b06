#include "server/explain_call.h"

#include <iterator>
#include <utility>

#include "server/grpc_status.h"
#include "server/parse_request.h"
#include "server/request_intake.h"

namespace chorus {

std::shared_ptr<ExplainCall> ExplainCall::Create(Options options) {
  std::shared_ptr<ExplainCall> call(new ExplainCall(std::move(options)));
  absl::MutexLock lock(&call->mutex_);
  call->self_ = call;
  return call;
}

void ExplainCall::Submit(Engine* engine, Request request) {
  request.explain = ParseExplain(*options_.request, engine->model_info());
  // The answer has no place for them.
  request.response.attribution = request.response.prompt_disagreement = false;
  record_ = RecordOf(request);
  explained_.request = request;
  const absl::Status status = submission_.Submit(engine, std::move(request), shared_from_this());
  if (!status.ok()) Reject(status);
}

void ExplainCall::Reject(const absl::Status& status) {
  options_.on_end(StreamEnd{record_, status, FinishSummary()});
  Finish(ToGrpcStatus(status));
}

void ExplainCall::OnStart(const PromptSummary& summary) { explained_.start = summary; }

void ExplainCall::OnToken(TokenEvent event) {
  std::move(event.attention_steps.begin(), event.attention_steps.end(),
            std::back_inserter(explained_.steps));
}

void ExplainCall::OnFinish(const absl::Status& status, FinishSummary summary) {
  options_.on_end(StreamEnd{record_, status, summary});
  if (options_.add_trailers) options_.add_trailers(summary);
  if (!status.ok()) return Finish(ToGrpcStatus(status));
  explained_.finish = std::move(summary);
  if (options_.pool->TryAdd([self = shared_from_this()] { self->Answer(); })) return;
  Finish(ToGrpcStatus(TaskPool::FullError()));
}

void ExplainCall::Answer() {
  const absl::Status status = Guarded([this] {
    return FillExplainResponse(std::move(explained_), *options_.tokenizer, options_.response);
  });
  Finish(ToGrpcStatus(status));
}

void ExplainCall::OnCancel() { submission_.Cancel(); }

void ExplainCall::OnDone() {
  std::shared_ptr<ExplainCall> self;
  {
    absl::MutexLock lock(&mutex_);
    self = std::move(self_);
  }
  options_.on_done();
}

}  // namespace chorus
