#include "server/call_info.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace chorus {
namespace {

// The specification wants several headers treated as none.
std::optional<TraceContext> TraceOf(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("traceparent");
  if (first == last || std::next(first) != last) return std::nullopt;
  return ParseTraceparent({first->second.data(), first->second.size()});
}

}  // namespace

CallInfo MakeCallInfo(std::string_view rpc, grpc::CallbackServerContext* context) {
  CallInfo call;
  call.rpc = std::string(rpc);
  call.peer = context->peer();
  call.trace = TraceOf(*context);
  if (call.trace.has_value()) {
    call.span_id = NewSpanId();
    context->AddTrailingMetadata("traceparent", FormatTraceparent(*call.trace, call.span_id));
  }
  return call;
}

LogFields DescribeCall(const CallInfo& call) {
  LogFields fields = {{"rpc", call.rpc}, {"peer", call.peer}};
  if (call.trace.has_value()) {
    fields.emplace_back("trace_id", call.trace->trace_id);
    fields.emplace_back("span_id", call.span_id);
    fields.emplace_back("parent_span_id", call.trace->parent_id);
  }
  return fields;
}

PhaseTimes PhaseTimesOf(const FinishSummary& summary) {
  const absl::Duration queued = summary.queue_time;
  // Without a first token all the rest was prefill.
  const absl::Duration first_token = summary.first_token_time > absl::ZeroDuration()
                                         ? summary.first_token_time
                                         : summary.total_time;
  return {queued, std::max(first_token - queued, absl::ZeroDuration()),
          std::max(summary.total_time - first_token, absl::ZeroDuration())};
}

void AddPhaseTrailers(const FinishSummary& summary, grpc::CallbackServerContext* context) {
  const PhaseTimes times = PhaseTimesOf(summary);
  const auto add = [&](const char* name, absl::Duration time) {
    context->AddTrailingMetadata(name, absl::StrFormat("%.6f", absl::ToDoubleSeconds(time)));
  };
  add("chorus-queue-seconds", times.queue);
  add("chorus-prefill-seconds", times.prefill);
  add("chorus-decode-seconds", times.decode);
}

}  // namespace chorus
