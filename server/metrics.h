#pragma once

#include <cstdint>
#include <memory>

#include "absl/time/time.h"

#include "core/engine/engine_observer.h"
#include "core/engine/model_runner.h"

namespace prometheus {
class Registry;
}

namespace chorus {

// Turns what the engine reports into Prometheus metrics: the one place that owns their names, units
// and buckets. Thread-safe; no method blocks longer than an uncontended lock.
//
// Conservation: requests_accepted_total = requests_running + requests_waiting + the sum of
// requests_finished_total. Every label value that can occur exists from the start, at zero.
class ServerMetrics final : public EngineObserver {
 public:
  explicit ServerMetrics(int32_t num_workers);
  ~ServerMetrics() override;

  // Once the model is loaded.
  void SetModelInfo(const ModelInfo& info);
  // The limits that alerts compare with what they see.
  void SetLimits(int32_t max_queued_requests, absl::Duration drain_timeout);
  void StartDraining(absl::Time now);
  // Of the TLS certificate in use; without TLS the metric does not exist.
  void SetCertificateExpiry(absl::Time not_after);
  // A call came without a valid token.
  void OnUnauthenticated();

  const std::shared_ptr<prometheus::Registry>& registry() const;

  void OnRejected(RejectReason reason) override;
  void OnAccepted(const Request& request) override;
  void OnStarted(const Request& request, const PromptSummary& summary,
                 absl::Duration queued) override;
  void OnFirstToken(const Request& request, absl::Duration since_submission) override;
  void OnInterToken(absl::Duration since_last_token) override;
  void OnAttribution(const Attribution& attribution) override;
  void OnDisagreement(float bits) override;
  void OnFinished(const Request& request, Outcome outcome, const FinishSummary& summary) override;
  void OnStep(const StepStats& stats) override;
  void OnKvUse(int32_t worker, int32_t num_used, int32_t num_slots) override;
  void OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) override;
  void OnPreempted(const Request& request) override;
  void OnHeartbeat(int32_t worker, absl::Time now) override;
  void OnLoad(int32_t num_waiting, int32_t num_running) override;

 private:
  struct Metrics;  // keeps Prometheus' headers out of here
  std::unique_ptr<Metrics> metrics_;
};

}  // namespace chorus
