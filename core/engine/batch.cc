#include "core/engine/batch.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/engine/step_plan_builder.h"

namespace chorus {
namespace {

// Slots kept free for each running request when another one is admitted: enough for so many steps
// that admission does not lead to a preemption at once.
constexpr int64_t kGrowthSlots = 8;

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

// A failed step is one of what ModelRunner::Run names, whatever else the runner says.
absl::Status StepError(const absl::Status& status) {
  const bool is_named = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
  return absl::Status(is_named ? status.code() : absl::StatusCode::kInternal,
                      absl::StrCat("the model step failed: ", status.message()));
}

const Urgency& UrgencyOf(const RunningRequest& request) { return request.pending().urgency; }

}  // namespace

Batch::Batch(int32_t worker, ModelRunner* runner, const WorkerContext& context, WorkerInbox* inbox)
    : worker_(worker),
      context_(context),
      runner_(*runner),
      inbox_(*inbox),
      cache_(runner->info().num_kv_slots, context.options->max_idle_cache_tokens),
      scheduler_({.max_step_rows = context.options->max_step_rows,
                  .prompt_share_rows = context.options->prompt_share_rows}) {}

Batch::~Batch() { CHECK(running_.empty() && parked_.empty() && next_ == nullptr); }

Batch::Progress Batch::RunOnce(const absl::Status& ending) {
  for (const auto& request : running_) NotePause(request.get());
  for (const auto& request : parked_) NotePause(request.get());
  EndOutdated(ending);
  Admit();
  if (!running_.empty()) GrowAll();
  ReportKvUse();  // a step may take long: what it uses is to be seen while it runs
  const bool stepped = !running_.empty() && RunStep();
  ReportKvUse();
  if (stepped) return Progress::kStepped;
  return running_.empty() && parked_.empty() && next_ == nullptr ? Progress::kIdle
                                                                 : Progress::kPaused;
}

// --- Ends before their time ---

void Batch::NotePause(RunningRequest* request) const {
  if (request->sink().WantsMore()) {
    request->paused_since.reset();
  } else if (!request->paused_since.has_value()) {
    request->paused_since = context_.clock->Now();
  }
}

void Batch::EndOutdated(const absl::Status& ending) {
  const absl::Time now = context_.clock->Now();
  const absl::Time oldest = now - context_.options->max_queue_delay;
  for (auto& pending : ending.ok() ? inbox_.queue.TakeEnded(now, oldest) : inbox_.queue.TakeAll()) {
    const absl::Status status = EndingOfWaiting(*pending, now, ending);
    EndPending(std::move(pending), status);
  }
  if (next_ != nullptr) {
    const absl::Status status = EndingOfWaiting(next_->pending(), now, ending);
    if (!status.ok()) EndPending(TakeNext(), status);
  }
  const auto ending_of = [&](const RunningRequest& request) -> std::optional<absl::Status> {
    absl::Status status = EndingOf(request.pending(), now, ending);
    const auto paused = request.paused_since;
    if (status.ok() && paused.has_value() && now - *paused > context_.options->max_reader_stall) {
      status = absl::DeadlineExceededError(absl::StrCat(
          "the answer's reader has taken nothing for ", absl::FormatDuration(now - *paused)));
    }
    if (status.ok()) return std::nullopt;
    return status;
  };
  EndWhere(&running_, ending_of);
  EndWhere(&parked_, ending_of);
}

absl::Status Batch::EndingOf(const PendingRequest& pending, absl::Time now,
                             const absl::Status& ending) const {
  if (pending.cancelled->load(std::memory_order_relaxed)) {
    return absl::CancelledError("the request was cancelled");
  }
  if (pending.request.deadline <= now) {
    return absl::DeadlineExceededError("the request's deadline passed");
  }
  return ending;
}

absl::Status Batch::EndingOfWaiting(const PendingRequest& pending, absl::Time now,
                                    const absl::Status& ending) const {
  absl::Status status = EndingOf(pending, now, ending);
  const absl::Duration limit = context_.options->max_queue_delay;
  if (!status.ok() || now - pending.submitted <= limit) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat("the request has waited longer than ", absl::FormatDuration(limit)));
}

// --- KV space ---

// Parked and waiting requests come in by urgency; nothing overtakes the most urgent one, so that a
// large request is not starved by small ones.
void Batch::Admit() {
  const auto paused = [](const auto& request) { return request->paused_since.has_value(); };
  while (true) {
    FindNext();
    // Parked requests whose readers are behind have nothing to run for.
    const auto parked = std::find_if_not(parked_.begin(), parked_.end(), paused);
    const bool resumes =
        parked != parked_.end() && (next_ == nullptr || UrgencyOf(**parked) < UrgencyOf(*next_));
    if (!resumes && next_ == nullptr) return;
    RunningRequest* const request = resumes ? parked->get() : next_.get();
    if (!MayRun(*request, resumes)) return;
    if (!TryTakeKv(request)) return;  // may park others: `parked` is stale now
    if (resumes) {
      Insert(TakeOut(request, &parked_), &running_);
      context_.observer->OnResumed(request->request());
      continue;
    }
    const absl::Time now = context_.clock->Now();
    if (IsHopeless(*next_, now)) {
      EndPending(TakeNext(),
                 absl::DeadlineExceededError("the deadline leaves no time for a first token"));
      continue;
    }
    Start(next_.get());
    Insert(std::move(next_), &running_);
    ReportLoad();
  }
}

bool Batch::MayRun(const RunningRequest& request, bool resumes) const {
  const auto background = [](const auto& other) { return other->is_background(); };
  if (request.is_background()) {
    return resumes || (std::none_of(running_.begin(), running_.end(), background) &&
                       std::none_of(parked_.begin(), parked_.end(), background));
  }
  const auto counts = [](const auto& other) {
    return !other->is_background() && !other->paused_since.has_value();
  };
  return std::count_if(running_.begin(), running_.end(), counts) <
         context_.options->max_running_requests;
}

void Batch::FindNext() {
  const std::optional<Urgency> head = inbox_.queue.HeadUrgency();
  if (next_ != nullptr && head.has_value() && *head < UrgencyOf(*next_)) {
    inbox_.queue.Return(TakeNext());
  }
  if (next_ != nullptr) return;
  auto pending = inbox_.queue.Pop();
  if (pending == nullptr) return;
  next_ = std::make_unique<RunningRequest>(std::move(pending), &cache_,
                                           context_.options->eos_token_ids, context_.tokenizer);
}

std::unique_ptr<PendingRequest> Batch::TakeNext() {
  return RunningRequest::TakePending(std::move(next_));
}

void Batch::Start(RunningRequest* request) {
  request->started = context_.clock->Now();
  NotePause(request);
  context_.ledger->StartOne(request->pending().load());
  const PromptSummary summary = request->SummarisePrompt(worker_);
  request->sink().OnStart(summary);
  const int64_t num_evictions = cache_.num_evictions();
  context_.observer->OnSegmentLookup(
      request->num_segments_found(), request->num_segments_missed(),
      num_evictions - std::exchange(num_evictions_reported_, num_evictions));
  context_.observer->OnStarted(request->request(), summary,
                               *request->started - request->submitted());
}

bool Batch::TryTakeKv(RunningRequest* request) {
  while (!Fits(*request)) {
    if (!ParkOneFor(*request)) return false;
  }
  return request->TakeKv();
}

bool Batch::Fits(const RunningRequest& request) const {
  if (running_.empty()) return true;  // whatever was accepted fits alone
  const KvNeed need = request.NeedOfKv();
  const auto num_running = static_cast<int64_t>(running_.size()) + 1;
  const int64_t reserve = std::min<int64_t>(num_running * kGrowthSlots, cache_.num_slots() / 8);
  return need.num_slots + need.num_idle_slots + reserve <= cache_.num_available();
}

bool Batch::IsHopeless(const RunningRequest& request, absl::Time now) const {
  if (best_rows_per_second_ <= 0.0) return false;
  const int64_t num_rows = request.plan().prompt_tokens - request.cached_tokens();
  const absl::Duration least = absl::Seconds(static_cast<double>(num_rows) / best_rows_per_second_);
  return now + least > request.request().deadline;
}

void Batch::Insert(std::unique_ptr<RunningRequest> request, Requests* into) {
  const auto place =
      std::upper_bound(into->begin(), into->end(), request,
                       [](const auto& a, const auto& b) { return UrgencyOf(*a) < UrgencyOf(*b); });
  into->insert(place, std::move(request));
}

void Batch::GrowAll() {
  for (size_t i = 0; i < running_.size();) {
    RunningRequest* const request = running_[i].get();
    if (request->paused_since.has_value() || request->GrowKv()) {
      ++i;
      continue;
    }
    if (ParkOneFor(*request)) {
      i = 0;  // places have changed; who has grown needs nothing more
      continue;
    }
    // The least urgent goes, which may be the one in need itself; a request alone always fits.
    CHECK(running_.size() > 1);
    Park(running_.back().get());
  }
}

bool Batch::ParkOneFor(const RunningRequest& request) {
  if (request.is_background()) return false;
  const auto gives_way = std::find_if(running_.rbegin(), running_.rend(), [](const auto& other) {
    return other->is_background() || other->paused_since.has_value();
  });
  if (gives_way == running_.rend()) return false;
  Park(gives_way->get());
  return true;
}

void Batch::Park(RunningRequest* request) {
  request->ReleaseKv();
  context_.observer->OnPreempted(request->request());
  Insert(TakeOut(request, &running_), &parked_);
}

std::unique_ptr<RunningRequest> Batch::TakeOut(const RunningRequest* request, Requests* from) {
  const auto place = std::find_if(from->begin(), from->end(),
                                  [&](const auto& other) { return other.get() == request; });
  CHECK(place != from->end());
  std::unique_ptr<RunningRequest> taken = std::move(*place);
  from->erase(place);
  return taken;
}

// --- Steps ---

std::vector<RunningRequest*> Batch::ReadyRequests() const {
  // Requests that were paused when others came in make more than may run, when their readers go on:
  // the least urgent ones wait, with what KV space they have.
  const auto max_running = static_cast<size_t>(context_.options->max_running_requests);
  std::vector<RunningRequest*> ready;
  for (const auto& request : running_) {  // background ones come last
    if (request->paused_since.has_value()) continue;
    const bool may_run = request->is_background()
                             ? ready.empty() || num_steps_ % kBackgroundPeriod == 0
                             : ready.size() < max_running;
    if (may_run) ready.push_back(request.get());
  }
  return ready;
}

RunningRequest* Batch::TakeAlone() {
  for (const auto& request : running_) {
    if (!request->paused_since.has_value() && alone_.erase(request.get()) > 0) return request.get();
  }
  alone_.clear();  // the others have ended, were parked, or wait for their readers
  return nullptr;
}

// False if every running request is paused.
bool Batch::RunStep() {
  RunningRequest* const alone = TakeAlone();
  const std::vector<RunningRequest*> ready =
      alone != nullptr ? std::vector<RunningRequest*>{alone} : ReadyRequests();
  if (ready.empty()) return false;
  ++num_steps_;
  const std::vector<StepWork> works = scheduler_.PlanStep(ready);
  const StepPlan plan = BuildStepPlan(works);
  absl::flat_hash_set<RunningRequest*> requests;
  for (const StepWork& work : works) {
    if (requests.insert(work.request).second) ++work.request->model_steps;
  }

  const absl::Time begin = context_.clock->Now();
  absl::StatusOr<StepResult> result = runner_.Run(plan);
  if (result.ok() && (result->tokens.size() != plan.choices.size() ||
                      result->probes.size() != plan.probes.size())) {
    result = absl::InternalError("the runner gave another number of tokens or probes than asked");
  }
  ReportStep(plan, works, begin);
  if (absl::IsUnavailable(result.status())) inbox_.LoseDevice(StepError(result.status()));
  absl::flat_hash_map<const RunningRequest*, absl::Status> errors;
  if (result.ok()) {
    errors = DeliverAll(works, *std::move(result));
  } else if (absl::IsResourceExhausted(result.status()) && requests.size() > 1) {
    alone_.insert(requests.begin(), requests.end());  // nothing is lost: the step was not taken
  } else {
    for (RunningRequest* request : requests) errors[request] = StepError(result.status());
  }
  EndWhere(&running_, [&](const RunningRequest& request) -> std::optional<absl::Status> {
    if (const auto error = errors.find(&request); error != errors.end()) return error->second;
    if (request.finished()) return absl::OkStatus();
    return std::nullopt;
  });
  return true;
}

absl::flat_hash_map<const RunningRequest*, absl::Status> Batch::DeliverAll(
    absl::Span<const StepWork> works, StepResult result) {
  absl::flat_hash_map<const RunningRequest*, absl::Status> errors;
  const absl::Time now = context_.clock->Now();
  // Segments first: a request that ends below drops those of its segments that are not filled.
  for (const StepWork& work : works) {
    if (work.kind == StepWork::Kind::kSegment) work.segment->FillUpTo(work.segment_rows.end);
  }
  size_t next_token = 0;
  absl::Span<const AttentionProbeResult> probes_left = result.probes;
  for (const StepWork& work : works) {
    if (work.kind == StepWork::Kind::kSegment) continue;
    Generation& generation = work.request->generation(work.generation_index);
    if (work.kind == StepWork::Kind::kOwn) {
      for (int32_t index : generation.plan().sequence_indexes) {
        work.request->sequence(index).SetMoved();
      }
      generation.Advance(work.num_early_rows, work.num_final_rows > 0);
    }
    for (int32_t i = 0; i < work.num_choices(); ++i) {
      ChosenToken& token = result.tokens[next_token++];
      const auto probes = probes_left.subspan(0, generation.num_probes());
      probes_left.remove_prefix(probes.size());
      if (errors.contains(work.request)) continue;
      if (!token.status.ok()) {
        errors[work.request] = token.status;
      } else if (generation.scoring() != nullptr) {
        DeliverScore(work, token, now);
      } else {
        Deliver(work, std::move(token), probes, now);
      }
    }
  }
  return errors;
}

void Batch::DeliverScore(const StepWork& work, const ChosenToken& token, absl::Time now) {
  RunningRequest& request = *work.request;
  if (!request.first_token_time.has_value()) request.first_token_time = now;
  if (work.kind == StepWork::Kind::kScore) {
    request.TakeScore(work.generation_index, work.continuation, token);
  } else {
    request.TakeFirstScores(work.generation_index, token);
  }
}

void Batch::Deliver(const StepWork& work, ChosenToken token,
                    absl::Span<const AttentionProbeResult> probes, absl::Time now) {
  RunningRequest& request = *work.request;
  Generation& generation = request.generation(work.generation_index);
  std::optional<TokenEvent> event = request.Append(work.generation_index, std::move(token), probes);
  if (!request.first_token_time.has_value()) {
    request.first_token_time = now;
    context_.observer->OnFirstToken(request.request(), now - request.submitted());
  }
  if (generation.last_token_time.has_value()) {
    context_.observer->OnInterToken(now - *generation.last_token_time);
  }
  generation.last_token_time = now;
  if (!event.has_value()) return;
  for (const Attribution& attribution : event->attribution) {
    context_.observer->OnAttribution(attribution);
  }
  for (float bits : event->disagreement) context_.observer->OnDisagreement(bits);
  request.sink().OnToken(*std::move(event));
}

void Batch::ReportStep(const StepPlan& plan, absl::Span<const StepWork> works, absl::Time begin) {
  StepStats stats;
  stats.worker = worker_;
  stats.num_rows = plan.num_rows();
  for (const StepWork& work : works) {
    if (work.kind == StepWork::Kind::kDecode) continue;
    stats.num_prefill_rows += static_cast<int32_t>(work.num_rows());
  }
  stats.now = context_.clock->Now();
  stats.duration = stats.now - begin;
  stats.kv_slots_used = cache_.num_in_use();
  stats.kv_slots_total = cache_.num_slots();
  if (stats.duration > absl::ZeroDuration()) {
    best_rows_per_second_ =
        std::max(best_rows_per_second_, stats.num_rows / absl::ToDoubleSeconds(stats.duration));
  }
  context_.observer->OnStep(stats);
}

// --- Ends ---

void Batch::EndPending(std::unique_ptr<PendingRequest> pending, const absl::Status& status) {
  FinishSummary summary;
  summary.queue_time = summary.total_time = context_.clock->Now() - pending->submitted;
  context_.observer->OnFinished(pending->request, OutcomeOf(status), summary);
  pending->sink->OnFinish(status, std::move(summary));
  inbox_.outstanding_rows -= pending->plan.num_slots;
  const RequestLoad load = pending->load();
  pending.reset();
  context_.ledger->EndOneWaiting(load);
  ReportLoad();
}

void Batch::EndStarted(std::unique_ptr<RunningRequest> request, const absl::Status& status) {
  FinishSummary summary = request->Summarise(context_.clock->Now());
  context_.observer->OnFinished(request->request(), OutcomeOf(status), summary);
  request->sink().OnFinish(status, std::move(summary));
  inbox_.outstanding_rows -= request->plan().num_slots;
  const RequestLoad load = request->pending().load();
  request.reset();
  context_.ledger->EndOneRunning(load);
  ReportLoad();
}

template <typename EndingFunction>
void Batch::EndWhere(Requests* from, const EndingFunction& ending) {
  Requests all = std::exchange(*from, {});
  for (auto& request : all) {
    if (const std::optional<absl::Status> status = ending(*request); status.has_value()) {
      EndStarted(std::move(request), *status);
    } else {
      from->push_back(std::move(request));
    }
  }
}

void Batch::ReportKvUse() {
  const int32_t num_used = cache_.num_in_use();
  if (std::exchange(num_slots_reported_, num_used) == num_used) return;
  context_.observer->OnKvUse(worker_, num_used, cache_.num_slots());
}

void Batch::ReportLoad() {
  context_.observer->OnLoad(context_.ledger->num_waiting(), context_.ledger->num_running());
}

}  // namespace chorus
