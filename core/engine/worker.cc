#include "core/engine/worker.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/engine/step_plan_builder.h"

namespace chorus {
namespace {

// How often a worker without work shows that it lives.
constexpr absl::Duration kIdleWait = absl::Seconds(1);
// How often a worker whose readers are all behind looks whether one has caught up: TokenSink tells
// nobody when WantsMore turns true.
constexpr absl::Duration kPausedWait = absl::Milliseconds(2);

Outcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return Outcome::kOk;
    case absl::StatusCode::kCancelled:
      return Outcome::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return Outcome::kDeadlineExceeded;
    case absl::StatusCode::kResourceExhausted:
      return Outcome::kResourceExhausted;
    case absl::StatusCode::kUnavailable:
      return Outcome::kUnavailable;
    case absl::StatusCode::kInvalidArgument:
      return Outcome::kInvalidArgument;
    default:
      return Outcome::kInternal;
  }
}

// A failed step is out of memory or an internal error, whatever else the runner says.
absl::Status StepError(const absl::Status& status) {
  const auto code = absl::IsResourceExhausted(status) ? absl::StatusCode::kResourceExhausted
                                                      : absl::StatusCode::kInternal;
  return absl::Status(code, absl::StrCat("the model step failed: ", status.message()));
}

}  // namespace

Worker::Worker(int32_t index, std::unique_ptr<ModelRunner> runner, const WorkerContext& context)
    : index_(index),
      context_(context),
      model_info_(runner->info()),
      runner_(std::move(runner)),
      allocator_(model_info_.num_kv_slots),
      scheduler_(context_.options->max_step_rows),
      last_progress_nanos_(absl::ToUnixNanos(context_.clock->Now())) {
  thread_ = std::thread([this] { ThreadMain(); });
}

Worker::~Worker() {
  EndAll(absl::StatusCode::kCancelled);
  stopping_ = true;
  queue_.Wake();
  thread_.join();
}

void Worker::Enqueue(std::unique_ptr<PendingRequest> pending) {
  // An idle worker's heartbeat may be old: the clock of liveness starts with its work.
  if (outstanding_rows_ == 0) last_progress_nanos_ = absl::ToUnixNanos(context_.clock->Now());
  outstanding_rows_ += pending->plan.num_slots;
  queue_.Push(std::move(pending));
}

void Worker::EndAll(absl::StatusCode code) {
  ending_code_ = code;
  queue_.Wake();
}

bool Worker::IsLive(absl::Time now, absl::Duration limit) const {
  if (outstanding_rows_ == 0) return true;
  return now - absl::FromUnixNanos(last_progress_nanos_) <= limit;
}

void Worker::ThreadMain() {
  while (true) {
    Beat();
    const bool stopping = stopping_;  // before EndOutdated, which then ends all there ever was
    EndOutdated();
    if (stopping) return;
    Admit();
    if (running_.empty()) {
      queue_.WaitForChange(kIdleWait);
    } else if (!RunStep()) {
      queue_.WaitForChange(kPausedWait);
    }
  }
}

void Worker::Beat() {
  const absl::Time now = context_.clock->Now();
  last_progress_nanos_ = absl::ToUnixNanos(now);
  context_.observer->OnHeartbeat(index_, now);
}

void Worker::EndOutdated() {
  const absl::Time now = context_.clock->Now();
  const bool ending = ending_code_ != absl::StatusCode::kOk;
  for (auto& pending : ending ? queue_.TakeAll() : queue_.TakeEnded(now)) {
    const bool cancelled = pending->cancelled->load(std::memory_order_relaxed);
    const absl::Status status = EndingOf(pending->request, cancelled, now);
    EndWaiting(std::move(pending), status);
  }
  EndWhere([&](const RunningRequest& running) -> std::optional<absl::Status> {
    absl::Status status = EndingOf(running.request(), running.cancelled(), now);
    if (status.ok()) return std::nullopt;
    return status;
  });
}

absl::Status Worker::EndingOf(const Request& request, bool cancelled, absl::Time now) const {
  if (cancelled) return absl::CancelledError("the request was cancelled");
  if (request.deadline <= now) return absl::DeadlineExceededError("the request's deadline passed");
  const absl::StatusCode code = ending_code_;
  if (code == absl::StatusCode::kOk) return absl::OkStatus();
  return absl::Status(code, "the server stops");
}

void Worker::Admit() {
  const auto max_running = static_cast<size_t>(context_.options->max_running_requests);
  while (running_.size() < max_running) {
    std::unique_ptr<PendingRequest> pending = queue_.PopIfFits(allocator_.num_free());
    if (pending == nullptr) return;
    context_.ledger->StartOne();
    auto running = std::make_unique<RunningRequest>(
        std::move(pending), &allocator_, context_.options->eos_token_ids, context_.tokenizer);
    running->started = context_.clock->Now();
    const PromptSummary summary = running->SummarisePrompt(index_);
    running->sink().OnStart(summary);
    context_.observer->OnStarted(running->request(), summary,
                                 running->started - running->submitted());
    running_.push_back(std::move(running));
    ReportLoad();
  }
}

// False if every running request is paused.
bool Worker::RunStep() {
  std::vector<RunningRequest*> ready;
  for (const auto& running : running_) {
    if (running->sink().WantsMore()) ready.push_back(running.get());
  }
  if (ready.empty()) return false;
  const std::vector<StepWork> works = scheduler_.PlanStep(ready);
  const StepPlan plan = BuildStepPlan(works);
  RunningRequest* last = nullptr;  // a request's works stand together in each half of the list
  for (const StepWork& work : works) {
    if (work.request != last) ++work.request->model_steps;
    last = work.request;
  }

  const absl::Time begin = context_.clock->Now();
  absl::StatusOr<StepResult> result = runner_->Run(plan);
  if (result.ok() && result->tokens.size() != plan.choices.size()) {
    result = absl::InternalError("the runner chose another number of tokens than asked");
  }
  ReportStep(plan, works, begin);
  absl::flat_hash_map<const RunningRequest*, absl::Status> errors;
  if (result.ok()) {
    errors = DeliverAll(works, *std::move(result));
  } else {
    for (const StepWork& work : works) errors[work.request] = StepError(result.status());
  }
  EndWhere([&](const RunningRequest& running) -> std::optional<absl::Status> {
    if (const auto error = errors.find(&running); error != errors.end()) return error->second;
    if (running.finished()) return absl::OkStatus();
    return std::nullopt;
  });
  return true;
}

// Returns the requests of which a choice failed.
absl::flat_hash_map<const RunningRequest*, absl::Status> Worker::DeliverAll(
    absl::Span<const StepWork> works, StepResult result) {
  absl::flat_hash_map<const RunningRequest*, absl::Status> errors;
  const absl::Time now = context_.clock->Now();
  size_t next_token = 0;
  for (const StepWork& work : works) {
    Generation& generation = work.request->generation(work.generation_index);
    if (!work.decode) generation.AdvancePrompt(work.num_early_rows, work.final_rows);
    if (!work.chooses()) continue;
    ChosenToken& token = result.tokens[next_token++];
    if (!token.status.ok()) {
      errors[work.request] = token.status;
    } else {
      Deliver(work, std::move(token), now);
    }
  }
  return errors;
}

void Worker::Deliver(const StepWork& work, ChosenToken token, absl::Time now) {
  RunningRequest& running = *work.request;
  Generation& generation = running.generation(work.generation_index);
  std::optional<TokenEvent> event = running.Append(work.generation_index, std::move(token));
  if (!running.first_token_time.has_value()) {
    running.first_token_time = now;
    context_.observer->OnFirstToken(running.request(), now - running.submitted());
  }
  if (generation.last_token_time.has_value()) {
    context_.observer->OnInterToken(now - *generation.last_token_time);
  }
  generation.last_token_time = now;
  if (event.has_value()) running.sink().OnToken(*std::move(event));
}

void Worker::ReportStep(const StepPlan& plan, absl::Span<const StepWork> works, absl::Time begin) {
  StepStats stats;
  stats.worker = index_;
  stats.num_rows = plan.num_rows();
  for (const StepWork& work : works) {
    const Generation& generation = work.request->generation(work.generation_index);
    if (work.decode) continue;
    stats.num_prefill_rows += static_cast<int32_t>(
        work.num_early_rows + (work.final_rows ? generation.num_final_rows() : 0));
  }
  stats.now = context_.clock->Now();
  stats.duration = stats.now - begin;
  stats.kv_slots_used = allocator_.num_used();
  stats.kv_slots_total = allocator_.num_slots();
  context_.observer->OnStep(stats);
}

void Worker::EndWaiting(std::unique_ptr<PendingRequest> pending, const absl::Status& status) {
  FinishSummary summary;
  summary.queue_time = summary.total_time = context_.clock->Now() - pending->submitted;
  context_.observer->OnFinished(pending->request, OutcomeOf(status), summary);
  pending->sink->OnFinish(status, std::move(summary));
  outstanding_rows_ -= pending->plan.num_slots;
  pending.reset();
  context_.ledger->EndOneWaiting();
  ReportLoad();
}

void Worker::EndRunning(std::unique_ptr<RunningRequest> running, const absl::Status& status) {
  FinishSummary summary = running->Summarise(context_.clock->Now());
  context_.observer->OnFinished(running->request(), OutcomeOf(status), summary);
  running->sink().OnFinish(status, std::move(summary));
  outstanding_rows_ -= running->plan().num_slots;
  running.reset();
  context_.ledger->EndOneRunning();
  ReportLoad();
}

template <typename EndingFunction>
void Worker::EndWhere(EndingFunction ending) {
  std::vector<std::unique_ptr<RunningRequest>> all = std::exchange(running_, {});
  for (auto& running : all) {
    if (const std::optional<absl::Status> status = ending(*running); status.has_value()) {
      EndRunning(std::move(running), *status);
    } else {
      running_.push_back(std::move(running));
    }
  }
}

void Worker::ReportLoad() {
  context_.observer->OnLoad(context_.ledger->num_waiting(), context_.ledger->num_running());
}

}  // namespace chorus
