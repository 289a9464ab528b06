#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "core/engine/engine.h"
#include "core/engine/engine_observer.h"
#include "tests/support/collecting_sink.h"

namespace chorus::bench {

// One step of the engine's, as its observer hears of it.
struct StepRecord {
  int32_t num_rows = 0;
  int32_t num_prefill_rows = 0;
  absl::Time end;
  absl::Duration duration;
};

// Keeps all steps; thread-safe.
class StepRecorder final : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override;
  std::vector<StepRecord> Take();

 private:
  absl::Mutex mutex_;
  std::vector<StepRecord> steps_ ABSL_GUARDED_BY(mutex_);
};

// What a request of the benchmark is: paraphrases of random tokens, no two requests the same.
struct LoadShape {
  int32_t num_prompts = 6;
  int32_t prompt_tokens = 50;
  int32_t suffix_tokens = 5;
  int32_t max_new_tokens = 64;
  int32_t vocab_size = 0;
};
Request MakeRequest(const LoadShape& shape, FusionMethod method, int32_t seed);

// An engine with one runner, and the steps that it did.
class BenchEngine {
 public:
  static absl::StatusOr<std::unique_ptr<BenchEngine>> Create(std::unique_ptr<ModelRunner> runner,
                                                             const Tokenizer* tokenizer,
                                                             int32_t max_step_rows);

  using Sinks = std::vector<std::shared_ptr<CollectingSink>>;
  // All at once; returns when all have ended. The first error of any.
  absl::StatusOr<Sinks> Run(const std::vector<Request>& requests);

  // Steps since the last call.
  std::vector<StepRecord> TakeSteps() { return recorder_.Take(); }
  const ModelInfo& info() const { return engine_->model_info(); }

 private:
  StepRecorder recorder_;
  std::unique_ptr<Engine> engine_;
};

// Rows a second of the steps that read prompts only. 0 if there were none.
double PrefillRowsPerSecond(const std::vector<StepRecord>& steps);

// Steps a second among those that wrote tokens of all requests and read no prompt, from the end of
// the first to the end of the last: with all that goes on between steps. 0 if fewer than two.
double FullDecodeStepsPerSecond(const std::vector<StepRecord>& steps, int32_t num_rows);

}  // namespace chorus::bench
