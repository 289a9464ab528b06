#include "core/engine/worker_pool.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

// Segments whose worker is remembered: some 10 MB, and more than workers keep.
constexpr size_t kMaxAffinitySegments = 1 << 17;

}  // namespace

WorkerPool::WorkerPool(EngineOptions options, std::vector<std::unique_ptr<ModelRunner>> runners,
                       const Tokenizer* tokenizer, EngineObserver* observer, const Clock* clock)
    : options_(std::move(options)),
      observer_(observer),
      clock_(clock),
      ledger_({.max_waiting = options_.max_queued_requests,
               .max_waiting_tokens = options_.max_queued_tokens,
               .max_background = options_.max_explain_requests}),
      model_info_(runners.front()->info()),
      affinity_(static_cast<int32_t>(runners.size()), kMaxAffinitySegments) {
  for (const auto& runner : runners) {
    model_info_.num_kv_slots = std::min(model_info_.num_kv_slots, runner->info().num_kv_slots);
  }
  for (size_t i = 1; i < runners.size(); ++i) {
    const std::string& device = runners[i]->info().device;
    if (device != runners[i - 1]->info().device) absl::StrAppend(&model_info_.device, ",", device);
  }
  const WorkerContext context = {.options = &options_,
                                 .tokenizer = tokenizer,
                                 .observer = observer,
                                 .clock = clock,
                                 .ledger = &ledger_};
  for (auto& runner : runners) {
    const auto index = static_cast<int32_t>(workers_.size());
    workers_.push_back(std::make_unique<Worker>(index, std::move(runner), context));
  }
}

WorkerPool::~WorkerPool() {
  ledger_.StartDraining();
  EndAll(absl::StatusCode::kCancelled);
}

void WorkerPool::Place(std::unique_ptr<PendingRequest> pending) {
  size_t best = 0;
  if (workers_.size() > 1) {
    const std::vector<int64_t> cached = affinity_.CachedRows(pending->plan);
    const auto cost = [&](size_t i) {
      return std::pair(workers_[i]->is_lost(), workers_[i]->outstanding_rows() - cached[i]);
    };
    for (size_t i = 1; i < workers_.size(); ++i) {
      if (cost(i) < cost(best)) best = i;
    }
    affinity_.Placed(pending->plan, static_cast<int32_t>(best));
  }
  workers_[best]->Enqueue(std::move(pending));
}

void WorkerPool::EndAll(absl::StatusCode code) {
  for (const auto& worker : workers_) worker->EndAll(code);
}

absl::Status WorkerPool::CheckLive(absl::Duration limit) const {
  const absl::Time now = clock_->Now();
  for (size_t i = 0; i < workers_.size(); ++i) {
    const absl::Status status = workers_[i]->CheckLive(now, limit);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("worker ", i, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace chorus
