#include "core/engine/engine.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "core/base/status_macros.h"
#include "core/engine/fusion_strategy.h"
#include "core/engine/request_validation.h"
#include "core/engine/worker_pool.h"

namespace chorus {
namespace {

absl::Status CheckAtLeastOne(absl::string_view name, int64_t value) {
  if (value >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " must be at least 1, not ", value));
}

absl::Status CheckOptions(const EngineOptions& options) {
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("max_queued_requests", options.max_queued_requests));
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("max_running_requests", options.max_running_requests));
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("max_queued_tokens", options.max_queued_tokens));
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("max_explain_requests", options.max_explain_requests));
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("max_step_rows", options.max_step_rows));
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("prompt_share_rows", options.prompt_share_rows));
  CHORUS_RETURN_IF_ERROR(
      CheckAtLeastOne("max_idle_cache_tokens + 1", int64_t{options.max_idle_cache_tokens} + 1));
  for (const absl::Duration duration :
       {options.max_queue_delay, options.priority_ageing, options.max_reader_stall}) {
    if (duration < absl::ZeroDuration()) {
      return absl::InvalidArgumentError("a duration is negative");
    }
  }
  return CheckAtLeastOne("max_request_tokens", options.max_request_tokens);
}

absl::Status CheckRunners(const std::vector<std::unique_ptr<ModelRunner>>& runners) {
  CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("number of workers", runners.size()));
  const ModelInfo& first = runners.front()->info();
  for (const auto& runner : runners) {
    const ModelInfo& info = runner->info();
    CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("vocab_size", info.vocab_size));
    CHORUS_RETURN_IF_ERROR(CheckAtLeastOne("num_kv_slots", info.num_kv_slots));
    if (info.vocab_size != first.vocab_size || info.max_positions != first.max_positions) {
      return absl::InvalidArgumentError("workers hold different models");
    }
  }
  return absl::OkStatus();
}

absl::Status RejectionOf(RejectReason reason, const RequestLoad& load,
                         const EngineOptions& options) {
  if (reason == RejectReason::kDraining) {
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  if (load.is_background) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue is full: the server takes ",
                                                     options.max_explain_requests,
                                                     " Explain requests at a time"));
  }
  return absl::ResourceExhaustedError(absl::StrCat("the queue is full: it takes ",
                                                   options.max_queued_requests, " requests and ",
                                                   options.max_queued_tokens, " tokens"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    EngineOptions options, std::vector<std::unique_ptr<ModelRunner>> runners,
    const Tokenizer* tokenizer, EngineObserver* observer, const Clock* clock) {
  CHORUS_RETURN_IF_ERROR(CheckOptions(options));
  CHORUS_RETURN_IF_ERROR(CheckRunners(runners));
  return std::unique_ptr<Engine>(new Engine(std::make_unique<WorkerPool>(
      std::move(options), std::move(runners), tokenizer, observer, clock)));
}

Engine::Engine(std::unique_ptr<WorkerPool> pool) : pool_(std::move(pool)) {}

Engine::~Engine() = default;

absl::StatusOr<RequestHandle> Engine::Submit(Request request, std::shared_ptr<TokenSink> sink) {
  EngineObserver& observer = pool_->observer();
  const auto reject = [&](RejectReason reason, absl::Status status) {
    observer.OnRejected(reason);
    return status;
  };
  if (absl::Status status = ValidateRequest(request, model_info()); !status.ok()) {
    return reject(RejectReason::kInvalid, std::move(status));
  }
  if (absl::Status status = ValidateSize(request, model_info(), options()); !status.ok()) {
    return reject(RejectReason::kTooLarge, std::move(status));
  }
  absl::StatusOr<FusionPlan> plan = PlanFusion(request, model_info().layer_windows);
  if (!plan.ok()) return reject(RejectReason::kInvalid, plan.status());
  if (absl::Status status = ValidatePositions(request, *plan, model_info()); !status.ok()) {
    return reject(RejectReason::kTooLarge, std::move(status));
  }
  const absl::Time now = pool_->clock().Now();
  if (request.deadline <= now) {
    return reject(RejectReason::kDeadline,
                  absl::DeadlineExceededError("the deadline had passed on arrival"));
  }
  const RequestLoad load = {plan->num_slots, request.explain.has_value()};
  if (const auto reason = pool_->ledger().TryAccept(load); reason.has_value()) {
    return reject(*reason, RejectionOf(*reason, load, options()));
  }
  RequestHandle handle = {std::make_shared<std::atomic<bool>>(false)};
  auto pending = std::make_unique<PendingRequest>(
      PendingRequest{std::move(request), *std::move(plan), std::move(sink), handle.cancelled, now});
  observer.OnAccepted(pending->request);
  observer.OnLoad(num_waiting(), num_running());
  pool_->Place(std::move(pending));
  return handle;
}

void Engine::Cancel(const RequestHandle& handle) {
  if (handle.cancelled != nullptr) handle.cancelled->store(true, std::memory_order_relaxed);
}

bool Engine::Drain(absl::Duration timeout) {
  pool_->ledger().StartDraining();
  if (pool_->ledger().AwaitEmpty(timeout)) return true;
  pool_->EndAll(absl::StatusCode::kUnavailable);
  pool_->ledger().AwaitEmpty(absl::InfiniteDuration());
  return false;
}

const ModelInfo& Engine::model_info() const { return pool_->model_info(); }
const EngineOptions& Engine::options() const { return pool_->options(); }
int32_t Engine::num_waiting() const { return pool_->ledger().num_waiting(); }
int32_t Engine::num_running() const { return pool_->ledger().num_running(); }
bool Engine::is_queue_full() const { return pool_->ledger().is_full(); }
absl::Status Engine::CheckLive(absl::Duration limit) const { return pool_->CheckLive(limit); }

}  // namespace chorus
