#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "core/base/clock.h"
#include "core/engine/engine.h"
#include "core/engine/fusion_strategy.h"
#include "core/text/tokenizer.h"
#include "tests/support/fake_model_runner.h"

namespace chorus {

// The tiny golden model's tokenizer: 300 ids, of which 0..3 are special.
const Tokenizer& TestTokenizer();
inline constexpr int32_t kTestEos = 2;

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::FromUnixNanos(nanos_); }
  void Advance(absl::Duration duration) { nanos_ += absl::ToInt64Nanoseconds(duration); }

 private:
  std::atomic<int64_t> nanos_{1'000'000'000};
};

// Keeps what it is told; Await returns when the request has ended.
class RecordingSink final : public TokenSink {
 public:
  void OnStart(const PromptSummary& summary) override;
  void OnToken(TokenEvent event) override;
  void OnFinish(const absl::Status& status, FinishSummary summary) override;
  bool WantsMore() const override { return wants_more; }

  void Await() const;
  void AwaitTokens(size_t num_events) const;
  bool ended() const;
  int num_starts() const;

  // After Await.
  absl::Status status() const;
  FinishSummary summary() const;
  PromptSummary prompt() const;
  std::vector<TokenEvent> events() const;
  std::string StreamedText(int32_t prompt_index = -1) const;
  std::vector<int32_t> StreamedIds(int32_t prompt_index = -1) const;

  std::atomic<bool> wants_more{true};
  std::function<void()> on_finish;  // called within OnFinish, by the engine's thread

 private:
  mutable absl::Mutex mutex_;
  int num_starts_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_finishes_ ABSL_GUARDED_BY(mutex_) = 0;
  PromptSummary prompt_ ABSL_GUARDED_BY(mutex_);
  std::vector<TokenEvent> events_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  FinishSummary summary_ ABSL_GUARDED_BY(mutex_);
};

// Counts; the conservation law is checked against it.
class CountingObserver final : public EngineObserver {
 public:
  void OnRejected(RejectReason reason) override;
  void OnAccepted(const Request& request) override;
  void OnStarted(const Request& request, const PromptSummary& summary,
                 absl::Duration queued) override;
  void OnFirstToken(const Request& request, absl::Duration since_submission) override;
  void OnInterToken(absl::Duration since_last_token) override;
  void OnFinished(const Request& request, Outcome outcome, const FinishSummary& summary) override;
  void OnStep(const StepStats& stats) override;
  void OnKvUse(int32_t worker, int32_t num_used, int32_t num_slots) override;
  void OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) override;
  void OnPreempted(const Request& request) override;
  void OnHeartbeat(int32_t worker, absl::Time now) override;

  struct Counts {
    int accepted = 0;
    int started = 0;
    int finished = 0;
    int first_tokens = 0;
    int inter_tokens = 0;
    int heartbeats = 0;
    int max_kv_slots_used = 0;
    int last_kv_slots_used = 0;
    int reported_kv_slots_used = 0;  // OnKvUse's last word
    int64_t prefill_rows = 0;
    int64_t rows = 0;
    int64_t steps = 0;
    int32_t max_step_rows = 0;
    int64_t segment_hits = 0;
    int64_t segment_misses = 0;
    int64_t evictions = 0;
    int preemptions = 0;
    std::map<Outcome, int> outcomes;
    std::map<RejectReason, int> rejected;
    std::vector<std::string> finish_order;  // request ids
    std::vector<std::string> start_order;
  };
  Counts counts() const;

 private:
  mutable absl::Mutex mutex_;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
};

// An engine on fake runners, with all that it needs.
struct TestEngine {
  explicit TestEngine(FakeModelOptions model = {}, EngineOptions options = {}, int num_workers = 1);

  // Submits and expects acceptance.
  std::shared_ptr<RecordingSink> Submit(Request request, RequestHandle* handle = nullptr);
  // Submits and waits.
  std::shared_ptr<RecordingSink> Run(Request request);

  CountingObserver observer;
  FakeClock clock;
  std::unique_ptr<Engine> engine;
};

// Blocks steps until opened; a step passes for each Open(1).
class Gate {
 public:
  void Pass();
  void Open(int num_steps);
  void OpenForGood();
  // Until the worker has come to the gate `num_steps` times.
  void AwaitArrivals(int num_steps);
  std::function<absl::Status(const StepPlan&, int64_t)> Hook();

 private:
  absl::Mutex mutex_;
  int64_t num_open_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_arrived_ ABSL_GUARDED_BY(mutex_) = 0;
};

std::vector<int32_t> RandomTokens(std::mt19937& random, int32_t length);
// Any method and setting, small lengths.
Request RandomRequest(std::mt19937& random);
Request SimpleRequest(FusionMethod method, int32_t max_new_tokens);

// What the fake model must answer to `request`, made from SegmentMask row by row without any
// scheduling: token ids by generation, in the caller's order (one list but for PER_PROMPT and
// VOTE).
std::vector<std::vector<int32_t>> ReferenceAnswers(const Request& request,
                                                   const std::vector<int32_t>& eos_token_ids,
                                                   int32_t vocab_size);

}  // namespace chorus
