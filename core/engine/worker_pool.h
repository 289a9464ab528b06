#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "core/base/clock.h"
#include "core/engine/engine.h"
#include "core/engine/request_ledger.h"
#include "core/engine/request_queue.h"
#include "core/engine/segment_affinity.h"
#include "core/engine/worker.h"

namespace chorus {

// An engine's workers, one replica of the model each, and what they share. Thread-safe after
// construction.
class WorkerPool {
 public:
  // As Engine::Create, which has checked the arguments; one runner at least.
  WorkerPool(EngineOptions options, std::vector<std::unique_ptr<ModelRunner>> runners,
             const Tokenizer* tokenizer, EngineObserver* observer, const Clock* clock);
  ~WorkerPool();

  const EngineOptions& options() const { return options_; }
  // The model's, with the smallest num_kv_slots of all workers (what fits fits anywhere) and all
  // devices, each once where the workers come device by device: "cuda:0,cuda:1".
  const ModelInfo& model_info() const { return model_info_; }
  RequestLedger& ledger() { return ledger_; }
  EngineObserver& observer() { return *observer_; }
  const Clock& clock() const { return *clock_; }

  // Gives a request that the ledger has accepted to the worker with the fewest outstanding rows,
  // after those are taken off that it would find in the worker's segment cache. A worker whose
  // device is lost gets none while there is another.
  void Place(std::unique_ptr<PendingRequest> pending);

  void EndAll(absl::StatusCode code);
  absl::Status CheckLive(absl::Duration limit) const;

 private:
  const EngineOptions options_;
  EngineObserver* const observer_;
  const Clock* const clock_;
  RequestLedger ledger_;
  ModelInfo model_info_;
  SegmentAffinity affinity_;
  std::vector<std::unique_ptr<Worker>> workers_;  // last: their threads use the rest
};

}  // namespace chorus
