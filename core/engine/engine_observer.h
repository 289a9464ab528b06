#pragma once

#include <cstdint>
#include <string_view>

#include "absl/time/time.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"

namespace chorus {

// How an accepted request ended. Every accepted request ends in exactly one of these.
enum class Outcome { kOk, kCancelled, kDeadlineExceeded, kResourceExhausted, kUnavailable, kInvalidArgument,
                     kInternal };
std::string_view OutcomeName(Outcome outcome);  // "ok", "cancelled", ...

// Why a request was not accepted.
enum class RejectReason { kInvalid, kQueueFull, kTooLarge, kDraining, kDeadline };
std::string_view RejectReasonName(RejectReason reason);

struct StepStats {
  int32_t worker = 0;
  int32_t num_rows = 0;          // all rows of the step
  int32_t num_prefill_rows = 0;  // of these, prompt rows
  absl::Duration duration;
  int32_t kv_slots_used = 0;  // while the step ran, as OnKvUse
  int32_t kv_slots_total = 0;
  absl::Time now;
};

// Told what happens in the engine; the server turns it into metrics. Methods are called from any
// thread, must be thread-safe and must not block. Conservation: accepted = sum of finished.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnRejected(RejectReason reason) {}
  virtual void OnAccepted(const Request& request) {}
  // The request's first step is about to run.
  virtual void OnStarted(const Request& request, const PromptSummary& summary, absl::Duration queued) {}
  virtual void OnFirstToken(const Request& request, absl::Duration since_submission) {}
  virtual void OnInterToken(absl::Duration since_last_token) {}
  // For every streamed token whose request asked for it: what it looked at; how far the prompts'
  // distributions were apart, in bits.
  virtual void OnAttribution(const Attribution& attribution) {}
  virtual void OnDisagreement(float bits) {}
  virtual void OnFinished(const Request& request, Outcome outcome, const FinishSummary& summary) {}
  virtual void OnStep(const StepStats& stats) {}
  // KV slots that a worker's requests use; idle cached segments do not count. When it has changed.
  virtual void OnKvUse(int32_t worker, int32_t num_used, int32_t num_slots) {}
  // Segments that a request, when it first took KV space, found in the cache or did not; and how
  // many others had to make room since the last call.
  virtual void OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) {}
  // A running request lost its KV space to a more urgent one; it will go on.
  virtual void OnPreempted(const Request& request) {}
  // It has KV space again and goes on, after reading again what it had.
  virtual void OnResumed(const Request& request) {}
  // Worker loop iteration, also when there is nothing to do.
  virtual void OnHeartbeat(int32_t worker, absl::Time now) {}
  virtual void OnLoad(int32_t num_waiting, int32_t num_running) {}
};

}  // namespace chorus
