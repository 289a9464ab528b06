#include "client/load_report.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/enum_names.h"

namespace chorus {
namespace {

using Json = nlohmann::ordered_json;

std::string MethodNames(const LoadOptions& options) {
  return absl::StrJoin(options.ask.methods, ",", [](std::string* out, v1::FusionMethod method) {
    out->append(EnumName(method));
  });
}

double PerSecond(const LoadResult& result, int64_t count) {
  return result.seconds > 0 ? static_cast<double>(count) / result.seconds : 0;
}

// To the microsecond: what lies below is noise, and the digits of a float.
double Rounded(double value) { return std::round(value * 1e6) / 1e6; }

Json SummaryJson(const SampleSet& samples) {
  const Summary summary = samples.Summarize();
  return {{"count", summary.count},      {"mean", Rounded(summary.mean)},
          {"p50", Rounded(summary.p50)}, {"p90", Rounded(summary.p90)},
          {"p95", Rounded(summary.p95)}, {"p99", Rounded(summary.p99)},
          {"max", Rounded(summary.max)}};
}

Json RequestsJson(const LoadResult& result) {
  Json errors = Json::object();
  for (const auto& [code, error] : result.errors)
    errors[absl::StatusCodeToString(code)] = error.count;
  return {{"sent", result.num_sent},
          {"ok", result.num_ok},
          {"cancelled", result.num_cancelled},
          {"not_sent", result.num_not_sent},
          {"errors", std::move(errors)}};
}

Json ErrorMessagesJson(const LoadResult& result) {
  Json messages = Json::object();
  for (const auto& [code, error] : result.errors) {
    messages[absl::StatusCodeToString(code)] = error.first_message;
  }
  return messages;
}

Json StallProbeJson(const StallProbeResult& probe) {
  return {{"prompt_tokens", probe.prompt_tokens},
          {"ttft_seconds", Rounded(probe.ttft)},
          {"median_inter_token_before", Rounded(probe.median_inter_token_before)},
          {"p99_inter_token_during", Rounded(probe.p99_inter_token_during)},
          {"max_inter_token_during", Rounded(probe.max_inter_token_during)},
          {"ratio", Rounded(probe.ratio)},
          {"error", probe.error.empty() ? Json() : Json(probe.error)}};
}

std::string RequestLines(const LoadResult& result) {
  std::string lines =
      absl::StrFormat("requests   %d sent: %d ok, %d cancelled, %d failed\n", result.num_sent,
                      result.num_ok, result.num_cancelled, result.num_failed());
  for (const auto& [code, error] : result.errors) {
    absl::StrAppend(&lines, "             ", absl::StatusCodeToString(code), " ", error.count,
                    " times, the first: ", error.first_message, "\n");
  }
  if (result.num_not_sent > 0) {
    absl::StrAppend(&lines, "           ", result.num_not_sent,
                    " arrivals not sent: --max_in_flight requests were running\n");
  }
  return lines;
}

std::string SummaryLine(const char* name, const SampleSet& samples) {
  const Summary summary = samples.Summarize();
  if (summary.count == 0) return absl::StrFormat("%-14s %9d\n", name, 0);
  return absl::StrFormat("%-14s %9d %9.4f %9.4f %9.4f %9.4f %9.4f %9.4f\n", name, summary.count,
                         summary.mean, summary.p50, summary.p90, summary.p95, summary.p99,
                         summary.max);
}

std::string StallProbeLines(const StallProbeResult& probe) {
  if (!probe.error.empty()) return absl::StrCat("\nstall probe  ", probe.error, "\n");
  return absl::StrFormat(
      "\nstall probe  %d tokens, first token after %.3f s; between tokens of the others: median "
      "%.4f s before,\n             p99 %.4f s and at most %.4f s during (p99 during / median "
      "before: %.1f)\n",
      probe.prompt_tokens, probe.ttft, probe.median_inter_token_before,
      probe.p99_inter_token_during, probe.max_inter_token_during, probe.ratio);
}

}  // namespace

Json LoadJson(const LoadOptions& options, const LoadResult& result, bool has_answers) {
  const bool is_open = options.is_open_loop();
  return {{"mode", is_open ? "open" : "closed"},
          {"method", MethodNames(options)},
          {"clients", is_open ? Json() : Json(options.num_clients())},
          {"rate", is_open ? Json(*options.rate) : Json()},
          {"seed", options.random_seed},
          {"seconds", Rounded(result.seconds)},
          {"requests", RequestsJson(result)},
          {"error_messages", ErrorMessagesJson(result)},
          {"tokens",
           {{"prompt", result.prompt_tokens},
            {"cached", result.cached_tokens},
            {"generated", result.generated_tokens}}},
          {"requests_per_second", Rounded(PerSecond(result, result.num_ok))},
          {"generated_tokens_per_second", Rounded(PerSecond(result, result.generated_tokens))},
          {"prompt_tokens_per_second", Rounded(PerSecond(result, result.prompt_tokens))},
          {"ttft_seconds", SummaryJson(result.ttft)},
          {"inter_token_seconds", SummaryJson(result.inter_token)},
          {"end_to_end_seconds", SummaryJson(result.end_to_end)},
          {"queue_seconds", SummaryJson(result.queue)},
          {"answers_right", has_answers ? Json(result.num_right) : Json()},
          {"stall_probe", result.stall_probe ? StallProbeJson(*result.stall_probe) : Json()}};
}

std::string LoadTable(const LoadOptions& options, const LoadResult& result, bool has_answers) {
  std::string table = options.is_open_loop()
                          ? absl::StrFormat("open loop, %g requests/s asked", *options.rate)
                          : absl::StrFormat("closed loop, %d clients", options.num_clients());
  absl::StrAppendFormat(&table, ", %s, %.1f s measured, seed %d\n\n", MethodNames(options),
                        result.seconds, options.random_seed);
  absl::StrAppend(&table, RequestLines(result));
  absl::StrAppendFormat(
      &table, "rates      %.2f requests/s, %.1f generated and %.1f prompt tokens/s\n",
      PerSecond(result, result.num_ok), PerSecond(result, result.generated_tokens),
      PerSecond(result, result.prompt_tokens));
  absl::StrAppendFormat(&table, "tokens     %d generated, %d prompt tokens, %d of them cached\n",
                        result.generated_tokens, result.prompt_tokens, result.cached_tokens);
  if (has_answers) {
    absl::StrAppendFormat(&table, "answers    %d of %d right\n", result.num_right, result.num_ok);
  }
  absl::StrAppendFormat(&table, "\n%-14s %9s %9s %9s %9s %9s %9s %9s\n", "seconds", "count", "mean",
                        "p50", "p90", "p95", "p99", "max");
  absl::StrAppend(&table, SummaryLine("first token", result.ttft),
                  SummaryLine("between tokens", result.inter_token),
                  SummaryLine("end to end", result.end_to_end),
                  SummaryLine("in the queue", result.queue));
  if (result.stall_probe) absl::StrAppend(&table, StallProbeLines(*result.stall_probe));
  return table;
}

}  // namespace chorus
