#include "tests/bench/gpu_model_load.h"

#include <algorithm>
#include <random>
#include <utility>

#include "core/base/status_macros.h"

namespace chorus::bench {

void StepRecorder::OnStep(const StepStats& stats) {
  absl::MutexLock lock(&mutex_);
  steps_.push_back({stats.num_rows, stats.num_prefill_rows, stats.now, stats.duration});
}

std::vector<StepRecord> StepRecorder::Take() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(steps_, {});
}

Request MakeRequest(const LoadShape& shape, FusionMethod method, int32_t seed) {
  constexpr int32_t kFirstToken = 4;  // those before may mean something to the engine
  std::mt19937 random(seed);
  std::uniform_int_distribution<int32_t> token(kFirstToken, shape.vocab_size - 1);
  const auto tokens = [&](int32_t count) {
    std::vector<int32_t> out(count);
    for (int32_t& id : out) id = token(random);
    return out;
  };
  Request request;
  for (int32_t i = 0; i < shape.num_prompts; ++i) {
    request.prompts.push_back(tokens(shape.prompt_tokens));
  }
  request.suffix = tokens(shape.suffix_tokens);
  request.fusion.method = method;
  request.stopping.max_new_tokens = shape.max_new_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

absl::StatusOr<std::unique_ptr<BenchEngine>> BenchEngine::Create(
    std::unique_ptr<ModelRunner> runner, const Tokenizer* tokenizer, int32_t max_step_rows) {
  auto bench = std::make_unique<BenchEngine>();
  EngineOptions options;
  options.max_step_rows = max_step_rows;
  options.prompt_share_rows =
      max_step_rows;  // prompts first: decoding is then measured undisturbed
  options.max_queued_requests = 1024;
  options.max_idle_cache_tokens = 0;  // nothing is found that was read before
  std::vector<std::unique_ptr<ModelRunner>> runners;
  runners.push_back(std::move(runner));
  CHORUS_ASSIGN_OR_RETURN(bench->engine_, Engine::Create(options, std::move(runners), tokenizer,
                                                         &bench->recorder_, Clock::Real()));
  return bench;
}

absl::StatusOr<BenchEngine::Sinks> BenchEngine::Run(const std::vector<Request>& requests) {
  Sinks sinks;
  absl::Status status;
  for (const Request& request : requests) {
    auto sink = std::make_shared<CollectingSink>();
    const auto handle = engine_->Submit(request, sink);
    status.Update(handle.status());
    if (handle.ok()) sinks.push_back(std::move(sink));
  }
  for (const auto& sink : sinks) {
    sink->Wait();
    status.Update(sink->status);
  }
  if (!status.ok()) return status;
  return sinks;
}

double PrefillRowsPerSecond(const std::vector<StepRecord>& steps) {
  int64_t num_rows = 0;
  absl::Duration duration;
  for (const StepRecord& step : steps) {
    if (step.num_prefill_rows != step.num_rows) continue;
    num_rows += step.num_rows;
    duration += step.duration;
  }
  return num_rows == 0 ? 0 : static_cast<double>(num_rows) / absl::ToDoubleSeconds(duration);
}

double FullDecodeStepsPerSecond(const std::vector<StepRecord>& steps, int32_t num_rows) {
  std::vector<absl::Time> ends;
  for (const StepRecord& step : steps) {
    if (step.num_prefill_rows == 0 && step.num_rows == num_rows) ends.push_back(step.end);
  }
  if (ends.size() < 2) return 0;
  return static_cast<double>(ends.size() - 1) / absl::ToDoubleSeconds(ends.back() - ends.front());
}

}  // namespace chorus::bench
