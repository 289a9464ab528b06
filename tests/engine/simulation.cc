#include "tests/engine/simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/engine/request_validation.h"

namespace chorus {
namespace {

// How often a worker whose readers are all behind looks again. A real one looks more often.
constexpr absl::Duration kPausedTurn = absl::Milliseconds(100);
// All has ended this long after the last request, or never will.
constexpr absl::Duration kLongestTail = absl::Hours(2);
constexpr size_t kMaxBreachesKept = 5;

int64_t NumberOf(const Request& request) {
  int64_t number = -1;
  CHECK(absl::SimpleAtoi(request.id, &number));
  return number;
}

// Rows that run together, for a first token or for one of a continuation.
int64_t CountFinalRows(const FusionPlan& plan) {
  int64_t most = 0;
  for (const GenerationPlan& generation : plan.generations) {
    int64_t rows = 0;
    for (const SequenceRows& piece : generation.final_rows) rows += piece.rows.length();
    most = std::max({most, rows, static_cast<int64_t>(generation.sequence_indexes.size())});
  }
  return most;
}

}  // namespace

// Reads with a habit; writes down what comes.
class Simulation::Reader final : public TokenSink {
 public:
  Reader(const ReaderHabit& habit, RequestRecord* record, const Clock* clock)
      : habit_(habit), record_(*record), clock_(*clock) {
    if (habit_.tokens_between_pauses == 0) paused_until_ = clock_.Now() + habit_.pause;
  }

  void OnStart(const PromptSummary&) override {
    CHECK(record_.num_ends == 0);
    ++record_.num_starts;
  }

  void OnToken(TokenEvent event) override {
    CHECK(record_.num_starts == 1 && record_.num_ends == 0);
    record_.streamed_tokens += static_cast<int64_t>(event.token_ids.size());
    record_.event_times.push_back(clock_.Now());
    if (++num_events_ % std::max(habit_.tokens_between_pauses, 1) == 0) {
      paused_until_ = clock_.Now() + habit_.pause;
    }
  }

  void OnFinish(const absl::Status& status, FinishSummary summary) override {
    ++record_.num_ends;
    record_.ended = clock_.Now();
    record_.status = status;
    record_.summary = std::move(summary);
  }

  bool WantsMore() const override { return clock_.Now() >= paused_until_; }

 private:
  const ReaderHabit habit_;
  RequestRecord& record_;
  const Clock& clock_;
  int64_t num_events_ = 0;
  absl::Time paused_until_ = absl::InfinitePast();
};

std::vector<std::vector<int32_t>> RequestRecord::Answers() const {
  if (summary.prompts.empty()) return {summary.answer.token_ids};
  std::vector<std::vector<int32_t>> answers;
  for (const Answer& answer : summary.prompts) answers.push_back(answer.token_ids);
  return answers;
}

std::vector<double> RequestRecord::Scores() const {
  std::vector<double> values;
  for (const ContinuationScore& score : summary.scores) {
    values.insert(values.end(), score.token_logprobs.begin(), score.token_logprobs.end());
    values.insert(values.end(), score.prompt_logprobs.begin(), score.prompt_logprobs.end());
  }
  return values;
}

Simulation::Simulation(SimulationOptions options)
    : options_(std::move(options)),
      ledger_({.max_waiting = options_.engine.max_queued_requests,
               .max_waiting_tokens = options_.engine.max_queued_tokens}),
      affinity_(options_.num_workers, options_.max_affinity_segments) {
  const WorkerContext context = {.options = &options_.engine,
                                 .tokenizer = &TestTokenizer(),
                                 .observer = this,
                                 .clock = &clock_,
                                 .ledger = &ledger_};
  SimulatedModelOptions model = options_.model;
  model.on_time = [this](absl::Duration duration) { clock_.Advance(duration); };
  for (int i = 0; i < options_.num_workers; ++i) {
    auto worker = std::make_unique<SimulatedWorker>();
    worker->runner = std::make_unique<SimulatedModelRunner>(model);
    worker->inbox = std::make_unique<WorkerInbox>(options_.engine.priority_ageing);
    worker->batch =
        std::make_unique<Batch>(i, worker->runner.get(), context, worker->inbox.get());
    worker->time = clock_.Now();
    workers_.push_back(std::move(worker));
  }
}

Simulation::~Simulation() = default;

// --- Events in order of time ---

void Simulation::Run(Traffic* traffic) {
  RunAll([&] { return traffic->Next(); });
}

void Simulation::Run(std::vector<Arrival> arrivals) {
  size_t next = 0;
  RunAll([&]() -> std::optional<Arrival> {
    if (next == arrivals.size()) return std::nullopt;
    return std::move(arrivals[next++]);
  });
}

const RequestRecord& Simulation::RunAlone(Request request) {
  const int64_t number = NumberOf(request);
  Arrival arrival = {.time = clock_.Now(), .request = std::move(request)};
  arrival.request.deadline = absl::InfiniteFuture();
  Run({std::move(arrival)});
  return records_.at(number);
}

template <typename Source>
void Simulation::RunAll(const Source& source) {
  std::optional<Arrival> next = source();
  absl::Time last_arrival = clock_.Now();
  while (true) {
    SimulatedWorker* const worker = NextWorker();
    if (next.has_value() && (worker == nullptr || next->time <= worker->time)) {
      last_arrival = next->time;
      clock_.Advance(next->time - clock_.Now());
      CancelUntil(next->time);
      Submit(*std::move(next));
      next = source();
    } else if (worker != nullptr) {
      CHECK(worker->time < last_arrival + kLongestTail);
      CancelUntil(worker->time);
      TakeTurn(worker);
    } else {
      return;
    }
  }
}

void Simulation::CancelUntil(absl::Time time) {
  while (!cancellations_.empty() && cancellations_.top().time <= time) {
    cancellations_.top().flag->store(true);
    cancellations_.pop();
  }
}

Simulation::SimulatedWorker* Simulation::NextWorker() {
  SimulatedWorker* next = nullptr;
  for (const auto& worker : workers_) {
    if (worker->awake && (next == nullptr || worker->time < next->time)) next = worker.get();
  }
  return next;
}

void Simulation::TakeTurn(SimulatedWorker* worker) {
  current_ = worker;
  clock_.Advance(worker->time - clock_.Now());
  worker->num_failed_steps_before = worker->runner->num_failed_steps();
  const Batch::Progress progress = worker->batch->RunOnce(absl::OkStatus());
  CheckEnded(*worker, worker->time);
  CheckStanding(*worker, progress);
  worker->time = clock_.Now();
  if (progress == Batch::Progress::kPaused) worker->time += kPausedTurn;
  worker->awake = progress != Batch::Progress::kIdle;
  current_ = nullptr;
}

void Simulation::CheckEnded(const SimulatedWorker& worker, absl::Time turn_begin) {
  for (const auto& [urgency, live] : worker.requests) {
    if (*live.cancelled || live.deadline <= turn_begin) {
      Breach(Property::kEndsInTime, "a request was cancelled or late at ",
             absl::FormatTime(turn_begin), " and has not ended");
    }
  }
}

void Simulation::CheckStanding(const SimulatedWorker& worker, Batch::Progress progress) {
  if (progress == Batch::Progress::kStepped) return;
  for (const auto& [urgency, live] : worker.requests) {
    const bool may_stand = progress == Batch::Progress::kPaused && live.started &&
                           !live.reader->WantsMore();
    if (!may_stand) {
      Breach(Property::kWorkConserving, "a worker stands still at ", absl::FormatTime(clock_.Now()),
             " while a request wants to run");
      break;
    }
  }
  const SegmentCache& cache = worker.batch->cache();
  if (progress != Batch::Progress::kIdle) return;
  if (cache.num_in_use() != 0 || worker.batch->num_running() != 0 ||
      worker.inbox->outstanding_rows != 0 ||
      cache.num_idle_slots() > options_.engine.max_idle_cache_tokens) {
    Breach(Property::kNothingLeaks, cache.num_in_use(), " slots in use, ", cache.num_idle_slots(),
           " of idle segments, ", worker.inbox->outstanding_rows.load(), " rows outstanding");
  }
}

// --- What Engine and WorkerPool do ---

void Simulation::Submit(Arrival arrival) {
  RequestRecord& record = records_[NumberOf(arrival.request)];
  record.method = arrival.request.fusion.method;
  record.scores = arrival.request.score.has_value();
  record.submitted = clock_.Now();
  auto plan = PlanFusion(arrival.request);
  CHECK(plan.ok());
  record.rejected = Refusal(arrival.request, *plan);
  if (record.rejected.has_value()) return;
  max_final_rows_ = std::max(max_final_rows_, CountFinalRows(*plan));
  SimulatedWorker* const worker = Place(*plan);
  record.worker = static_cast<int32_t>(
      std::find_if(workers_.begin(), workers_.end(),
                   [&](const auto& other) { return other.get() == worker; }) -
      workers_.begin());
  record.urgency = {
      .time = record.submitted - arrival.request.priority * options_.engine.priority_ageing,
      .arrival = worker->num_pushed++};
  auto flag = std::make_shared<std::atomic<bool>>(false);
  if (arrival.cancelled < absl::InfiniteFuture()) cancellations_.push({arrival.cancelled, flag});
  auto reader = std::make_shared<Reader>(arrival.reader, &record, &clock_);
  AddLive(worker, {.record = &record,
                   .reader = reader,
                   .cancelled = flag,
                   .deadline = arrival.request.deadline,
                   .num_slots = plan->num_slots});
  auto pending = std::make_unique<PendingRequest>(PendingRequest{
      std::move(arrival.request), *std::move(plan), reader, flag, record.submitted, {}});
  OnAccepted(pending->request);
  worker->inbox->outstanding_rows += pending->plan.num_slots;
  worker->inbox->queue.Push(std::move(pending));
  if (!std::exchange(worker->awake, true)) worker->time = clock_.Now();
}

std::optional<RejectReason> Simulation::Refusal(const Request& request, const FusionPlan& plan) {
  const ModelInfo& info = workers_.front()->runner->info();
  CHECK(ValidateRequest(request, info).ok());
  CHECK(ValidateSize(request, info, options_.engine).ok());
  CHECK(ValidatePositions(request, plan, info).ok());
  const auto reason = ledger_.TryAccept({plan.num_slots});
  if (reason.has_value()) return reason;
  counts_.max_waiting = std::max(counts_.max_waiting, ledger_.num_waiting());
  num_waiting_slots_ += plan.num_slots;
  if (ledger_.num_waiting() > options_.engine.max_queued_requests ||
      (ledger_.num_waiting() > 1 && num_waiting_slots_ > options_.engine.max_queued_tokens)) {
    Breach(Property::kStepBounds, ledger_.num_waiting(), " requests wait, with ",
           num_waiting_slots_, " tokens");
  }
  return std::nullopt;
}

Simulation::SimulatedWorker* Simulation::Place(const FusionPlan& plan) {
  const std::vector<int64_t> cached = affinity_.CachedRows(plan);
  const auto cost = [&](size_t i) { return workers_[i]->inbox->outstanding_rows - cached[i]; };
  size_t best = 0;
  for (size_t i = 1; i < workers_.size(); ++i) {
    if (cost(i) < cost(best)) best = i;
  }
  affinity_.Placed(plan, static_cast<int32_t>(best));
  return workers_[best].get();
}

void Simulation::AddLive(SimulatedWorker* worker, Live live) {
  const Urgency urgency = live.record->urgency;
  live.rows_run_before = worker->runner->num_rows();
  for (auto& [other_urgency, other] : worker->requests) {
    if (other.started || other_urgency < urgency) {
      live.rows_ahead += other.num_slots;
    } else {
      other.rows_ahead += live.num_slots;
    }
  }
  worker->requests.emplace(urgency, std::move(live));
}

// --- What is checked as it happens ---

template <typename... Parts>
void Simulation::Breach(Property property, const Parts&... parts) {
  std::vector<std::string>& kept = breaches_[property];
  if (kept.size() < kMaxBreachesKept) kept.push_back(absl::StrCat(parts...));
}

std::vector<std::string> Simulation::breaches(Property property) const {
  const auto found = breaches_.find(property);
  return found == breaches_.end() ? std::vector<std::string>() : found->second;
}

Simulation::Live& Simulation::LiveOf(const Request& request) {
  return current_->requests.at(records_.at(NumberOf(request)).urgency);
}

// Nobody more urgent wants a place in the batch. A parked request whose reader is behind does not.
void Simulation::CheckOrder(const Live& live) {
  for (const auto& [urgency, other] : current_->requests) {
    if (&other == &live) break;
    if (!other.started || (other.parked && other.reader->WantsMore())) {
      Breach(Property::kOrder, "a request starts or goes on before a more urgent one at ",
             absl::FormatTime(clock_.Now()));
      break;
    }
  }
}

void Simulation::OnStarted(const Request& request, const PromptSummary&, absl::Duration queued) {
  Live& live = LiveOf(request);
  CheckOrder(live);
  if (*live.cancelled || live.deadline <= clock_.Now()) {
    Breach(Property::kEndsInTime, "request ", request.id, " starts, cancelled or late");
  }
  live.started = true;
  live.record->started = clock_.Now();
  num_waiting_slots_ -= live.num_slots;
  counts_.max_wait = std::max(counts_.max_wait, queued);
  const int64_t num_rows = current_->runner->num_rows() - live.rows_run_before;
  if (!current_->preempts && num_rows > live.rows_ahead) {
    Breach(Property::kWait, "request ", request.id, " has waited for ", num_rows, " rows, but ",
           live.rows_ahead, " stood before it");
  }
}

void Simulation::OnFinished(const Request& request, Outcome outcome, const FinishSummary&) {
  const auto live = current_->requests.find(records_.at(NumberOf(request)).urgency);
  CHECK(live != current_->requests.end());
  if (!live->second.started) num_waiting_slots_ -= live->second.num_slots;
  const bool step_failed =
      current_->runner->num_failed_steps() > current_->num_failed_steps_before;
  if (outcome == Outcome::kInternal && !(step_failed && live->second.started)) {
    Breach(Property::kFailuresAreLocal, "request ", request.id, " fails though no step of it did: ",
           current_->runner->first_error());
  }
  current_->requests.erase(live);
}

void Simulation::OnPreempted(const Request& request) {
  ++counts_.preemptions;
  current_->preempts = true;
  Live& live = LiveOf(request);
  ++live.record->num_preemptions;
  live.parked = true;
  if (!live.reader->WantsMore()) return;
  for (const auto& [urgency, other] : current_->requests) {
    if (&other != &live && (!other.started || other.parked || !other.reader->WantsMore())) continue;
    if (&other == &live) {
      Breach(Property::kMostUrgentKept, "request ", request.id, " is the most urgent that runs");
    }
    break;
  }
}

void Simulation::OnResumed(const Request& request) {
  Live& live = LiveOf(request);
  CheckOrder(live);
  live.parked = false;
}

void Simulation::OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) {
  counts_.segment_hits += num_hits;
  counts_.segment_misses += num_misses;
  counts_.evictions += num_evictions;
}

void Simulation::OnStep(const StepStats& stats) {
  counts_.max_kv_slots_used = std::max(counts_.max_kv_slots_used, stats.kv_slots_used);
  counts_.max_step_rows = std::max(counts_.max_step_rows, stats.num_rows);
  if (stats.kv_slots_used > stats.kv_slots_total || stats.kv_slots_used < 0) {
    Breach(Property::kStepBounds, stats.kv_slots_used, " slots of ", stats.kv_slots_total);
  }
  if (current_->runner->max_choosing_requests() > options_.engine.max_running_requests) {
    Breach(Property::kStepBounds, current_->runner->max_choosing_requests(), " requests run");
  }
  CheckPlan(stats);
}

// Beside max_step_rows: one generation's rows, one prompt row that goes on beside a full step of
// others, and final rows that are more than there is room for.
void Simulation::CheckPlan(const StepStats& stats) {
  const int64_t max_rows = options_.engine.max_step_rows;
  const int64_t num_decode = stats.num_rows - stats.num_prefill_rows;
  const int64_t room = std::max<int64_t>(max_rows - num_decode, 1);
  if (num_decode > std::max(max_rows, max_final_rows_) ||
      stats.num_prefill_rows > std::max(room, max_final_rows_)) {
    Breach(Property::kStepBounds, "a step of ", num_decode, " rows that generate and ",
           stats.num_prefill_rows, " of prompts");
  }
}

}  // namespace chorus
