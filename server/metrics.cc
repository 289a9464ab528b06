#include "server/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/names.h"

namespace chorus {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;
using Buckets = Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

constexpr Outcome kOutcomes[] = {Outcome::kOk,
                                 Outcome::kCancelled,
                                 Outcome::kDeadlineExceeded,
                                 Outcome::kResourceExhausted,
                                 Outcome::kUnavailable,
                                 Outcome::kInvalidArgument,
                                 Outcome::kInternal};
constexpr RejectReason kReasons[] = {RejectReason::kInvalid, RejectReason::kQueueFull,
                                     RejectReason::kTooLarge, RejectReason::kDraining,
                                     RejectReason::kDeadline};
constexpr std::pair<FinishReason, const char*> kFinishReasons[] = {
    {FinishReason::kEos, "eos"},
    {FinishReason::kLength, "length"},
    {FinishReason::kStopString, "stop_string"},
    {FinishReason::kStopToken, "stop_token"}};
constexpr size_t kNumMethods = std::size(kAllMethods);
constexpr size_t kNumOutcomes = std::size(kOutcomes);

// From one decode step of a small model on a GPU to a long answer on a CPU, about 2.5 apart.
const Buckets kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                 0.5,   1,      2.5,   5,    10,    25,   50,  100};
const Buckets kStepBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                              0.1,    0.25,  0.5,    1,     2.5,  5,     10};
const Buckets kRowBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
const Buckets kBitsBuckets = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 6, 8};
const Buckets kSegmentBuckets = {1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256};

size_t MethodIndex(FusionMethod method) { return static_cast<size_t>(method) - 1; }

template <typename Enum, size_t N>
size_t IndexOf(const Enum (&values)[N], Enum value) {
  for (size_t i = 0; i < N; ++i) {
    if (values[i] == value) return i;
  }
  return 0;
}

// Of the segments' shares among each other, in bits; 0 where they have no mass at all.
double EntropyOfSegments(const Attribution& attribution) {
  double sum = 0.0;
  for (const float mass : attribution.segments) sum += mass;
  double entropy = 0.0;
  for (const float mass : attribution.segments) {
    if (mass > 0.0f) entropy -= mass / sum * std::log2(mass / sum);
  }
  return std::max(entropy, 0.0);  // rounding of one segment's share of 1
}

Counter& AddCounter(Registry& registry, const char* name, const char* help) {
  return BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

Gauge& AddGauge(Registry& registry, const char* name, const char* help, const Labels& labels = {}) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

Histogram& AddHistogram(Registry& registry, const char* name, const char* help,
                        const Buckets& buckets, const Labels& labels = {}) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

}  // namespace

struct ServerMetrics::Metrics {
  explicit Metrics(int32_t num_workers)
      : registry(std::make_shared<Registry>()), kv_used(num_workers), kv_total(num_workers) {
    AddLabelled(num_workers);
  }

  void AddLabelled(int32_t num_workers);
  void CountAnswers(const FinishSummary& summary);

  std::shared_ptr<Registry> registry;
  Counter& accepted =
      AddCounter(*registry, "chorus_requests_accepted_total", "Requests taken into the queue.");
  Gauge& running = AddGauge(*registry, "chorus_requests_running", "Requests in a batch now.");
  Gauge& waiting = AddGauge(*registry, "chorus_requests_waiting", "Requests in the queue now.");
  Histogram& queue_seconds = AddHistogram(*registry, "chorus_request_queue_seconds",
                                          "Submission to first step, seconds.", kSecondsBuckets);
  Histogram& first_token_seconds =
      AddHistogram(*registry, "chorus_time_to_first_token_seconds",
                   "Submission to first token, seconds.", kSecondsBuckets);
  Histogram& inter_token_seconds =
      AddHistogram(*registry, "chorus_inter_token_seconds",
                   "Between two tokens of one answer, seconds.", kStepBuckets);
  Histogram& prefill_seconds =
      AddHistogram(*registry, "chorus_prefill_seconds",
                   "First step to first token of a request, seconds.", kSecondsBuckets);
  Histogram& decode_seconds =
      AddHistogram(*registry, "chorus_decode_seconds",
                   "First token to the end of a request, seconds.", kSecondsBuckets);
  Counter& prompt_tokens = AddCounter(*registry, "chorus_prompt_tokens_total",
                                      "Prompt tokens of started requests, cached ones included.");
  Counter& cached_tokens = AddCounter(*registry, "chorus_cached_prompt_tokens_total",
                                      "Of the prompt tokens, those taken from the segment cache.");
  Counter& generated_tokens = AddCounter(*registry, "chorus_generated_tokens_total",
                                         "Tokens generated by requests that have finished.");
  Counter& scored_tokens = AddCounter(*registry, "chorus_scored_tokens_total",
                                      "Continuations' tokens scored by requests that have finished.");
  Histogram& step_rows = AddHistogram(*registry, "chorus_step_rows",
                                      "Rows of one model step over all its requests.", kRowBuckets);
  Gauge& kv_used_ratio =
      AddGauge(*registry, "chorus_kv_used_ratio",
               "Part of the key and value space of all workers that requests use, 0 to 1.");
  Counter& preemptions =
      AddCounter(*registry, "chorus_preemptions_total",
                 "Times a request lost its key and value space to a more urgent one and read again.");
  Counter& segment_hits = AddCounter(*registry, "chorus_segment_cache_hits_total",
                                     "Segments that starting requests found in the cache.");
  Counter& segment_misses = AddCounter(*registry, "chorus_segment_cache_misses_total",
                                       "Segments that starting requests did not find.");
  Counter& segment_evictions = AddCounter(*registry, "chorus_segment_cache_evictions_total",
                                          "Idle segments that had to make room.");
  Histogram& segments = AddHistogram(*registry, "chorus_segments_per_request",
                                     "Prompts of an accepted request.", kSegmentBuckets);
  Histogram& disagreement =
      AddHistogram(*registry, "chorus_prompt_disagreement",
                   "Jensen-Shannon divergence of the prompts' next-token distributions, bits; of "
                   "tokens of requests that asked for it.",
                   kBitsBuckets);
  Histogram& attribution_entropy =
      AddHistogram(*registry, "chorus_attribution_entropy",
                   "Entropy of a token's attention over the segments, among them, bits; of tokens "
                   "of requests that asked for attribution.",
                   kBitsBuckets);
  Counter& unauthenticated =
      AddCounter(*registry, "chorus_calls_unauthenticated_total",
                 "Calls of any method that came without a valid token.");
  Gauge& draining =
      AddGauge(*registry, "chorus_draining", "1 once the server takes no more requests, else 0.");
  Gauge& drain_started = AddGauge(*registry, "chorus_drain_started_timestamp_seconds",
                                  "Unix time at which draining began; 0 before.");
  Gauge& drain_timeout =
      AddGauge(*registry, "chorus_drain_timeout_seconds",
               "Time that running requests have to finish once draining began, --drain_timeout.");
  Gauge& max_queued =
      AddGauge(*registry, "chorus_max_queued_requests",
               "Requests that may wait, --max_queued_requests; further ones are refused.");

  std::array<Counter*, std::size(kReasons)> rejected{};
  std::array<std::array<Counter*, kNumOutcomes>, kNumMethods> finished{};
  std::map<FinishReason, Counter*> finish_reasons;
  std::array<Histogram*, kNumMethods> request_seconds{};
  Histogram* prefill_step = nullptr;
  Histogram* decode_step = nullptr;
  Histogram* mixed_step = nullptr;
  std::vector<Gauge*> heartbeats;

  absl::Mutex mutex;
  std::vector<int64_t> kv_used ABSL_GUARDED_BY(mutex);
  std::vector<int64_t> kv_total ABSL_GUARDED_BY(mutex);
};

void ServerMetrics::Metrics::AddLabelled(int32_t num_workers) {
  auto& rejected_family = BuildCounter()
                              .Name("chorus_requests_rejected_total")
                              .Help("Requests refused before the queue, by reason.")
                              .Register(*registry);
  for (size_t i = 0; i < rejected.size(); ++i) {
    rejected[i] = &rejected_family.Add({{"reason", std::string(RejectReasonName(kReasons[i]))}});
  }
  auto& finished_family = BuildCounter()
                              .Name("chorus_requests_finished_total")
                              .Help("Accepted requests that have ended, by method and outcome.")
                              .Register(*registry);
  auto& reasons_family = BuildCounter()
                             .Name("chorus_answers_finished_total")
                             .Help("Answers of requests that ended well, by finish reason; "
                                   "per_prompt and vote have one a prompt.")
                             .Register(*registry);
  for (const auto& [reason, name] : kFinishReasons) {
    finish_reasons[reason] = &reasons_family.Add({{"reason", name}});
  }
  auto& seconds_family = BuildHistogram()
                             .Name("chorus_request_seconds")
                             .Help("Submission to end of an accepted request, seconds.")
                             .Register(*registry);
  for (const FusionMethod method : kAllMethods) {
    const std::string name(MethodName(method));
    const size_t index = MethodIndex(method);
    request_seconds[index] = &seconds_family.Add({{"method", name}}, kSecondsBuckets);
    for (size_t i = 0; i < kNumOutcomes; ++i) {
      finished[index][i] = &finished_family.Add(
          {{"method", name}, {"outcome", std::string(OutcomeName(kOutcomes[i]))}});
    }
  }
  auto& step_family =
      BuildHistogram()
          .Name("chorus_step_seconds")
          .Help("One model step, seconds; phase says which rows it held: prefill, decode, mixed.")
          .Register(*registry);
  prefill_step = &step_family.Add({{"phase", "prefill"}}, kStepBuckets);
  decode_step = &step_family.Add({{"phase", "decode"}}, kStepBuckets);
  mixed_step = &step_family.Add({{"phase", "mixed"}}, kStepBuckets);
  auto& heartbeat_family = BuildGauge()
                               .Name("chorus_worker_heartbeat_timestamp_seconds")
                               .Help("Unix time of a worker loop's last iteration.")
                               .Register(*registry);
  for (int32_t worker = 0; worker < num_workers; ++worker) {
    heartbeats.push_back(&heartbeat_family.Add({{"worker", std::to_string(worker)}}));
  }
  AddGauge(*registry, "chorus_build_info", "Always 1; the labels say what was built.",
           {{"version", std::string(kServerVersion)}, {"compiler", __VERSION__}})
      .Set(1);
}

void ServerMetrics::Metrics::CountAnswers(const FinishSummary& summary) {
  for (const Answer& answer : summary.prompts) finish_reasons.at(answer.reason)->Increment();
  if (!summary.prompts.empty()) return;
  // A request that generates nothing, as Explain of a prompt, has a reason nobody set. An answer
  // that was over at once has no tokens either, but EOS.
  const FinishReason reason = summary.answer.reason;
  if (summary.generated_tokens == 0 && reason == FinishReason::kLength) return;
  finish_reasons.at(reason)->Increment();
}

ServerMetrics::ServerMetrics(int32_t num_workers)
    : metrics_(std::make_unique<Metrics>(num_workers)) {}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::SetModelInfo(const ModelInfo& info) {
  AddGauge(*metrics_->registry, "chorus_model_info", "Always 1; the labels say what is served.",
           {{"name", info.name}, {"dtype", info.dtype}, {"device", info.device}})
      .Set(1);
}

void ServerMetrics::SetLimits(int32_t max_queued_requests, absl::Duration drain_timeout) {
  metrics_->max_queued.Set(max_queued_requests);
  metrics_->drain_timeout.Set(absl::ToDoubleSeconds(drain_timeout));
}

void ServerMetrics::StartDraining(absl::Time now) {
  metrics_->drain_started.Set(absl::ToDoubleSeconds(now - absl::UnixEpoch()));
  metrics_->draining.Set(1);
}

void ServerMetrics::SetCertificateExpiry(absl::Time not_after) {
  // The registry gives the same gauge each time.
  AddGauge(*metrics_->registry, "chorus_certificate_expiry_timestamp_seconds",
           "Unix time when the TLS certificate's validity ends.")
      .Set(absl::ToDoubleSeconds(not_after - absl::UnixEpoch()));
}

void ServerMetrics::OnUnauthenticated() { metrics_->unauthenticated.Increment(); }

const std::shared_ptr<prometheus::Registry>& ServerMetrics::registry() const {
  return metrics_->registry;
}

void ServerMetrics::OnRejected(RejectReason reason) {
  metrics_->rejected[IndexOf(kReasons, reason)]->Increment();
}

void ServerMetrics::OnAccepted(const Request& request) {
  metrics_->accepted.Increment();
  metrics_->segments.Observe(static_cast<double>(request.prompts.size()));
}

void ServerMetrics::OnStarted(const Request& request, const PromptSummary& summary,
                              absl::Duration queued) {
  metrics_->queue_seconds.Observe(absl::ToDoubleSeconds(queued));
  metrics_->prompt_tokens.Increment(summary.prompt_tokens);
  metrics_->cached_tokens.Increment(summary.cached_tokens);
}

void ServerMetrics::OnFirstToken(const Request& request, absl::Duration since_submission) {
  metrics_->first_token_seconds.Observe(absl::ToDoubleSeconds(since_submission));
}

void ServerMetrics::OnInterToken(absl::Duration since_last_token) {
  metrics_->inter_token_seconds.Observe(absl::ToDoubleSeconds(since_last_token));
}

void ServerMetrics::OnAttribution(const Attribution& attribution) {
  metrics_->attribution_entropy.Observe(EntropyOfSegments(attribution));
}

void ServerMetrics::OnDisagreement(float bits) {
  if (std::isfinite(bits)) metrics_->disagreement.Observe(bits);
}

void ServerMetrics::OnFinished(const Request& request, Outcome outcome,
                               const FinishSummary& summary) {
  const size_t method = MethodIndex(request.fusion.method);
  metrics_->finished[method][IndexOf(kOutcomes, outcome)]->Increment();
  metrics_->request_seconds[method]->Observe(absl::ToDoubleSeconds(summary.total_time));
  metrics_->generated_tokens.Increment(summary.generated_tokens);
  metrics_->scored_tokens.Increment(summary.scored_tokens);
  if (request.score.has_value()) return;  // no answer, and none whose first token is waited for
  if (outcome == Outcome::kOk) metrics_->CountAnswers(summary);
  if (summary.first_token_time <= absl::ZeroDuration()) return;
  metrics_->prefill_seconds.Observe(
      absl::ToDoubleSeconds(summary.first_token_time - summary.queue_time));
  metrics_->decode_seconds.Observe(
      absl::ToDoubleSeconds(summary.total_time - summary.first_token_time));
}

void ServerMetrics::OnStep(const StepStats& stats) {
  metrics_->step_rows.Observe(stats.num_rows);
  Histogram* const phase = stats.num_prefill_rows == 0                ? metrics_->decode_step
                           : stats.num_prefill_rows == stats.num_rows ? metrics_->prefill_step
                                                                      : metrics_->mixed_step;
  phase->Observe(absl::ToDoubleSeconds(stats.duration));
}

void ServerMetrics::OnKvUse(int32_t worker, int32_t num_used, int32_t num_slots) {
  int64_t used = 0;
  int64_t total = 0;
  absl::MutexLock lock(&metrics_->mutex);
  metrics_->kv_used.at(worker) = num_used;
  metrics_->kv_total.at(worker) = num_slots;
  for (const int64_t slots : metrics_->kv_used) used += slots;
  for (const int64_t slots : metrics_->kv_total) total += slots;
  // Under the lock, so that of two workers' reports the later one stands.
  if (total > 0) metrics_->kv_used_ratio.Set(static_cast<double>(used) / total);
}

void ServerMetrics::OnSegmentLookup(int32_t num_hits, int32_t num_misses, int64_t num_evictions) {
  metrics_->segment_hits.Increment(num_hits);
  metrics_->segment_misses.Increment(num_misses);
  metrics_->segment_evictions.Increment(static_cast<double>(num_evictions));
}

void ServerMetrics::OnPreempted(const Request& request) { metrics_->preemptions.Increment(); }

void ServerMetrics::OnHeartbeat(int32_t worker, absl::Time now) {
  metrics_->heartbeats.at(worker)->Set(absl::ToDoubleSeconds(now - absl::UnixEpoch()));
}

void ServerMetrics::OnLoad(int32_t num_waiting, int32_t num_running) {
  metrics_->waiting.Set(num_waiting);
  metrics_->running.Set(num_running);
}

}  // namespace chorus
