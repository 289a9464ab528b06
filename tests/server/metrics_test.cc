#include "server/metrics.h"

#include <limits>
#include <string>
#include <utility>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/check.h"
#include "server/metrics_exposer.h"

namespace chorus {
namespace {

using testing::HasSubstr;

// The body of GET /metrics.
std::string Scrape(int port) {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
  CHECK(send(socket_fd, request.data(), request.size(), 0) == static_cast<ssize_t>(request.size()));
  std::string page;
  char buffer[4096];
  for (ssize_t count; (count = recv(socket_fd, buffer, sizeof(buffer), 0)) > 0;) {
    page.append(buffer, count);
  }
  close(socket_fd);
  return page;
}

std::string Page(const ServerMetrics& metrics) {
  auto exposer = MetricsExposer::Create("127.0.0.1:0", metrics.registry());
  CHECK(exposer.ok());
  return Scrape((*exposer)->port());
}

TEST(ServerMetricsTest, EveryMetricExistsFromTheStartWithItsHelp) {
  ServerMetrics metrics(2);
  metrics.SetModelInfo(ModelInfo{.name = "tiny", .device = "cpu", .dtype = "bfloat16"});
  const std::string page = Page(metrics);
  for (const char* name : {"requests_accepted_total",
                           "requests_rejected_total",
                           "requests_finished_total",
                           "answers_finished_total",
                           "requests_running",
                           "requests_waiting",
                           "request_queue_seconds",
                           "time_to_first_token_seconds",
                           "inter_token_seconds",
                           "request_seconds",
                           "prefill_seconds",
                           "decode_seconds",
                           "prompt_tokens_total",
                           "cached_prompt_tokens_total",
                           "generated_tokens_total",
                           "step_rows",
                           "step_seconds",
                           "kv_used_ratio",
                           "segments_per_request",
                           "prompt_disagreement",
                           "attribution_entropy",
                           "segment_cache_hits_total",
                           "segment_cache_misses_total",
                           "segment_cache_evictions_total",
                           "preemptions_total",
                           "worker_heartbeat_timestamp_seconds",
                           "draining",
                           "drain_started_timestamp_seconds",
                           "drain_timeout_seconds",
                           "max_queued_requests",
                           "build_info",
                           "model_info"}) {
    EXPECT_THAT(page, HasSubstr(std::string("# HELP chorus_") + name + " "));
    EXPECT_THAT(page, HasSubstr(std::string("# TYPE chorus_") + name + " "));
  }
  EXPECT_THAT(page, HasSubstr("chorus_requests_finished_total{method=\"vote\",outcome=\"ok\"} 0"));
  EXPECT_THAT(page, HasSubstr("chorus_requests_rejected_total{reason=\"queue_full\"} 0"));
  EXPECT_THAT(page, HasSubstr("worker=\"1\""));
  EXPECT_THAT(page, HasSubstr("dtype=\"bfloat16\""));
}

TEST(ServerMetricsTest, EventsLandWhereTheyBelong) {
  ServerMetrics metrics(2);
  Request request;
  request.prompts = {{1}, {2}, {3}};
  request.fusion.method = FusionMethod::kProbMean;
  metrics.OnAccepted(request);
  PromptSummary prompt;
  prompt.prompt_tokens = 30;
  prompt.cached_tokens = 10;
  metrics.OnStarted(request, prompt, absl::Seconds(2));
  metrics.OnFirstToken(request, absl::Seconds(3));
  metrics.OnInterToken(absl::Milliseconds(20));
  FinishSummary summary;
  summary.generated_tokens = 7;
  summary.queue_time = absl::Seconds(2);
  summary.first_token_time = absl::Seconds(3);
  summary.total_time = absl::Seconds(7);
  metrics.OnFinished(request, Outcome::kOk, summary);
  metrics.OnRejected(RejectReason::kDraining);
  for (const auto& [num_rows, num_prefill_rows] : {std::pair(5, 5), {2, 0}, {9, 8}}) {
    metrics.OnStep({.num_rows = num_rows,
                    .num_prefill_rows = num_prefill_rows,
                    .duration = absl::Seconds(1)});
  }
  metrics.OnKvUse(0, 30, 100);
  metrics.OnKvUse(1, 10, 100);
  metrics.OnKvUse(1, 20, 100);
  metrics.OnSegmentLookup(4, 2, 5);
  metrics.OnPreempted(request);
  metrics.OnFinished(request, Outcome::kInvalidArgument, FinishSummary());
  metrics.OnHeartbeat(1, absl::FromUnixSeconds(1234));
  metrics.OnLoad(3, 4);
  metrics.SetLimits(/*max_queued_requests=*/12, /*drain_timeout=*/absl::Seconds(45));
  metrics.StartDraining(absl::FromUnixSeconds(5678));
  const std::string page = Page(metrics);
  for (const char* line :
       {"chorus_requests_accepted_total 1\n",
        "chorus_requests_finished_total{method=\"prob_mean\",outcome=\"ok\"} 1\n",
        "chorus_requests_finished_total{method=\"prob_mean\",outcome=\"invalid_argument\"} 1\n",
        "chorus_requests_rejected_total{reason=\"draining\"} 1\n",
        "chorus_preemptions_total 1\n",
        "chorus_segment_cache_hits_total 4\n",
        "chorus_segment_cache_misses_total 2\n",
        "chorus_segment_cache_evictions_total 5\n",
        "chorus_requests_running 4\n",
        "chorus_requests_waiting 3\n",
        "chorus_request_queue_seconds_sum 2\n",
        "chorus_time_to_first_token_seconds_sum 3\n",
        "chorus_request_seconds_sum{method=\"prob_mean\"} 7\n",
        "chorus_prefill_seconds_sum 1\n",
        "chorus_decode_seconds_sum 4\n",
        "chorus_prompt_tokens_total 30\n",
        "chorus_cached_prompt_tokens_total 10\n",
        "chorus_generated_tokens_total 7\n",
        "chorus_step_rows_sum 16\n",
        "chorus_step_seconds_count{phase=\"prefill\"} 1\n",
        "chorus_step_seconds_count{phase=\"decode\"} 1\n",
        "chorus_step_seconds_count{phase=\"mixed\"} 1\n",
        "chorus_kv_used_ratio 0.25\n",
        "chorus_segments_per_request_sum 3\n",
        "chorus_worker_heartbeat_timestamp_seconds{worker=\"1\"} 1234\n",
        "chorus_draining 1\n",
        "chorus_drain_started_timestamp_seconds 5678\n",
        "chorus_drain_timeout_seconds 45\n",
        "chorus_max_queued_requests 12\n"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(ServerMetricsTest, EntropyIsOfTheSegmentsAmongEachOther) {
  ServerMetrics metrics(1);
  Attribution attribution;
  attribution.prefix = 0.5f;
  attribution.segments = {0.125f, 0.0625f, 0.0625f, 0.0f};  // 1/2, 1/4, 1/4: 1.5 bits
  metrics.OnAttribution(attribution);
  attribution.segments = {0.25f};  // 0 bits
  metrics.OnAttribution(attribution);
  attribution.segments = {0.0f, 0.0f};
  metrics.OnAttribution(attribution);
  metrics.OnDisagreement(0.75f);
  metrics.OnDisagreement(std::numeric_limits<float>::quiet_NaN());
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("chorus_attribution_entropy_count 3\n"));
  EXPECT_THAT(page, HasSubstr("chorus_attribution_entropy_sum 1.5\n"));
  EXPECT_THAT(page, HasSubstr("chorus_prompt_disagreement_count 1\n"));
  EXPECT_THAT(page, HasSubstr("chorus_prompt_disagreement_sum 0.75\n"));
}

TEST(ServerMetricsTest, EveryAnswerOfARequestThatEndedWellHasAFinishReason) {
  ServerMetrics metrics(1);
  FinishSummary one;
  one.generated_tokens = 1;
  one.answer.reason = FinishReason::kEos;
  metrics.OnFinished(Request(), Outcome::kOk, one);
  metrics.OnFinished(Request(), Outcome::kCancelled, one);
  metrics.OnFinished(Request(), Outcome::kOk, FinishSummary());  // generates nothing: no answer
  FinishSummary three = one;
  three.prompts.resize(3);
  three.prompts[0].reason = FinishReason::kStopString;
  metrics.OnFinished(Request(), Outcome::kOk, three);
  const std::string page = Page(metrics);
  for (const char* line : {"chorus_answers_finished_total{reason=\"eos\"} 1\n",
                           "chorus_answers_finished_total{reason=\"length\"} 2\n",
                           "chorus_answers_finished_total{reason=\"stop_string\"} 1\n",
                           "chorus_answers_finished_total{reason=\"stop_token\"} 0\n"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(ServerMetricsTest, ARequestWithoutTokensHasNoPrefillOrDecodeTime) {
  ServerMetrics metrics(1);
  metrics.OnFinished(Request(), Outcome::kCancelled, FinishSummary());
  EXPECT_THAT(Page(metrics), HasSubstr("chorus_prefill_seconds_count 0\n"));
  EXPECT_THAT(Page(metrics), HasSubstr("chorus_request_seconds_count{method=\"attention\"} 1\n"));
}

}  // namespace
}  // namespace chorus
