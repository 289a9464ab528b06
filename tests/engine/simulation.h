#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "core/engine/batch.h"
#include "core/engine/segment_affinity.h"
#include "tests/engine/engine_test_support.h"
#include "tests/engine/traffic.h"
#include "tests/support/simulated_model_runner.h"

namespace chorus {

struct SimulationOptions {
  EngineOptions engine;
  SimulatedModelOptions model;
  int num_workers = 1;
  size_t max_affinity_segments = 1000;
};

// What became of a request.
struct RequestRecord {
  std::optional<RejectReason> rejected;  // then the rest means nothing
  int32_t worker = 0;
  Urgency urgency;
  absl::Time submitted;
  absl::Time started = absl::InfiniteFuture();  // infinite: never
  absl::Time ended = absl::InfiniteFuture();
  int32_t num_starts = 0;
  int32_t num_ends = 0;
  int32_t num_preemptions = 0;
  absl::Status status;
  FinishSummary summary;
  int64_t streamed_tokens = 0;
  FusionMethod method = FusionMethod::kAttention;
  bool scores = false;  // it has continuations instead of an answer
  std::vector<absl::Time> event_times;  // when its reader got something

  bool ended_ok() const { return num_ends == 1 && status.ok(); }
  // Token ids by generation, caller's order.
  std::vector<std::vector<int32_t>> Answers() const;
  // Of all continuations, those of tokens and of prompts.
  std::vector<double> Scores() const;
};

// The engine without threads under a virtual clock: workers' batches on simulated models, and
// around them what Engine and WorkerPool do. Every worker has its own time, which a step moves on
// by what it costs; the one that is furthest behind goes next, so that events come to all in order.
// What must hold at every turn is checked at every turn: breaches() says what did not.
class Simulation final : public EngineObserver {
 public:
  explicit Simulation(SimulationOptions options);
  ~Simulation() override;

  // Takes all of `traffic` and runs until everything has ended.
  void Run(Traffic* traffic);
  void Run(std::vector<Arrival> arrivals);
  // One request, by itself.
  const RequestRecord& RunAlone(Request request);

  // By number, which is the request's id.
  const std::map<int64_t, RequestRecord>& records() const { return records_; }
  const Batch& batch(int worker) const { return *workers_[worker]->batch; }
  const SimulatedModelRunner& runner(int worker) const { return *workers_[worker]->runner; }
  const SegmentAffinity& affinity() const { return affinity_; }
  const RequestLedger& ledger() const { return ledger_; }

  // The first few times that a property did not hold; empty if it always did.
  enum class Property {
    kStepBounds,       // rows of a step, slots in use, requests that run, requests that wait
    kOrder,            // what starts or goes on is the most urgent one that waits or is parked
    kWait,             // and has not waited for more rows than stood before it
    kWorkConserving,   // no worker stands still while requests wait for it
    kMostUrgentKept,   // a preempted request was paused or not the most urgent one
    kNothingLeaks,     // an idle worker has no slot in use
    kEndsInTime,       // what is cancelled or late ends in the next turn, without starting
    kFailuresAreLocal  // requests end with INTERNAL only when a step fails, and after they started
  };
  std::vector<std::string> breaches(Property property) const;

  struct Counts {
    int64_t accepted = 0;
    int64_t preemptions = 0;
    int64_t first_tokens = 0;
    int64_t inter_tokens = 0;
    int64_t segment_hits = 0;
    int64_t segment_misses = 0;
    int64_t evictions = 0;
    int32_t max_waiting = 0;
    int32_t max_kv_slots_used = 0;
    int32_t max_step_rows = 0;
    absl::Duration max_wait;
  };
  const Counts& counts() const { return counts_; }

  // EngineObserver, called within Run.
  void OnAccepted(const Request& request) override { ++counts_.accepted; }
  void OnStarted(const Request& request, const PromptSummary& summary,
                 absl::Duration queued) override;
  void OnFirstToken(const Request&, absl::Duration) override { ++counts_.first_tokens; }
  void OnInterToken(absl::Duration) override { ++counts_.inter_tokens; }
  void OnFinished(const Request& request, Outcome outcome, const FinishSummary& summary) override;
  void OnStep(const StepStats& stats) override;
  void OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) override;
  void OnPreempted(const Request& request) override;
  void OnResumed(const Request& request) override;

 private:
  class Reader;
  // A request that has not ended.
  struct Live {
    RequestRecord* record = nullptr;
    std::shared_ptr<Reader> reader;
    std::shared_ptr<const std::atomic<bool>> cancelled;
    absl::Time deadline;
    int64_t num_slots = 0;
    bool started = false;
    bool parked = false;  // preempted and not resumed
    int64_t rows_ahead = 0;        // that may run before it starts
    int64_t rows_run_before = 0;   // of the worker, when it was submitted
  };
  struct SimulatedWorker {
    std::unique_ptr<SimulatedModelRunner> runner;
    std::unique_ptr<WorkerInbox> inbox;
    std::unique_ptr<Batch> batch;
    absl::Time time;
    bool awake = false;
    bool preempts = false;  // has ever: rows are run again, so waits are not counted in rows
    int64_t num_pushed = 0;
    int64_t num_failed_steps_before = 0;   // the present turn
    std::map<Urgency, Live> requests;      // all that have not ended
  };
  struct Cancellation {
    absl::Time time;
    std::shared_ptr<std::atomic<bool>> flag;
    bool operator<(const Cancellation& other) const { return time > other.time; }  // first on top
  };

  template <typename Source>  // source() -> std::optional<Arrival>
  void RunAll(const Source& source);
  void CancelUntil(absl::Time time);
  void Submit(Arrival arrival);
  std::optional<RejectReason> Refusal(const Request& request, const FusionPlan& plan);
  SimulatedWorker* Place(const FusionPlan& plan);
  void AddLive(SimulatedWorker* worker, Live live);
  SimulatedWorker* NextWorker();
  void TakeTurn(SimulatedWorker* worker);
  void CheckEnded(const SimulatedWorker& worker, absl::Time turn_begin);
  void CheckStanding(const SimulatedWorker& worker, Batch::Progress progress);
  void CheckPlan(const StepStats& stats);
  Live& LiveOf(const Request& request);
  void CheckOrder(const Live& live);
  template <typename... Parts>
  void Breach(Property property, const Parts&... parts);

  const SimulationOptions options_;
  FakeClock clock_;  // the time of the worker whose turn it is, or of the event
  RequestLedger ledger_;
  SegmentAffinity affinity_;
  std::vector<std::unique_ptr<SimulatedWorker>> workers_;
  SimulatedWorker* current_ = nullptr;  // whose turn it is
  std::priority_queue<Cancellation> cancellations_;
  std::map<int64_t, RequestRecord> records_;
  int64_t max_final_rows_ = 1;  // of any request so far
  int64_t num_waiting_slots_ = 0;
  std::map<Property, std::vector<std::string>> breaches_;
  Counts counts_;
};

}  // namespace chorus
