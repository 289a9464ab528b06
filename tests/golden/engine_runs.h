#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/engine.h"
#include "core/model/torch_model_runner.h"
#include "core/text/tokenizer.h"
#include "tests/support/collecting_sink.h"

namespace chorus {

// A model's files, ready for any number of engines, which it outlives.
struct LoadedModel {
  std::shared_ptr<const SharedWeights> weights;
  std::unique_ptr<const Tokenizer> tokenizer;
};

// Expects that it can be loaded.
LoadedModel LoadModel(const std::string& directory, ModelDtype dtype);

struct EngineRunOptions {
  int num_workers = 1;
  int num_threads = 2;  // of each worker
  int64_t kv_cache_bytes = int64_t{1} << 28;
  EngineOptions engine;
  // Put around each worker's runner; null: nothing.
  std::function<std::unique_ptr<ModelRunner>(std::unique_ptr<ModelRunner>)> wrap;
};

// The engine with the real model, as a server has it.
class EngineRun {
 public:
  using Sinks = std::vector<std::shared_ptr<CollectingSink>>;
  explicit EngineRun(const LoadedModel& model, const EngineRunOptions& options = {});

  // Expects acceptance; null if it is refused.
  std::shared_ptr<CollectingSink> Submit(const Request& request);
  // The requests' sinks, all ended. Alone: each when the one before has ended.
  Sinks RunAtOnce(absl::Span<const Request> requests);
  Sinks RunAlone(absl::Span<const Request> requests);

  const ModelInfo& model_info() const { return engine_->model_info(); }
  int64_t num_preemptions() const { return observer_.num_preemptions; }

 private:
  struct Observer final : EngineObserver {
    void OnPreempted(const Request&) override { ++num_preemptions; }
    std::atomic<int64_t> num_preemptions{0};
  };
  Observer observer_;
  std::unique_ptr<Engine> engine_;
};

// Expects that both ended well with the same events, bit for bit: token ids, log-probabilities and
// text, streamed and in the summary, and attribution and disagreement unless one of the two was not
// asked for them. Returns how many streamed tokens were compared.
int64_t ExpectSameStream(const CollectingSink& want, const CollectingSink& got,
                         bool with_statistics = true);

}  // namespace chorus
