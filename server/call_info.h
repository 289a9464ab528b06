#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <grpcpp/server_context.h>

#include "absl/time/time.h"

#include "core/engine/token_sink.h"
#include "server/logging.h"
#include "server/traceparent.h"

namespace chorus {

// What every log line of a call says of it.
struct CallInfo {
  std::string rpc;                    // "Generate"
  std::string peer;                   // "ipv4:10.0.0.7:51234"
  std::optional<TraceContext> trace;  // the caller's, if it sent one
  std::string span_id;                // this call's own, if it has a trace
};

// Looks at a call that has just come. If it carries a trace, its trailing metadata will hold
// `traceparent` with this call's span.
CallInfo MakeCallInfo(std::string_view rpc, grpc::CallbackServerContext* context);

// rpc, peer, and of a trace trace_id, span_id and parent_span_id.
LogFields DescribeCall(const CallInfo& call);

// Where a request's time went. The phases follow each other and add up to total_time; a phase that
// was not reached is 0.
struct PhaseTimes {
  absl::Duration queue;    // until its first step
  absl::Duration prefill;  // until its first token
  absl::Duration decode;   // until its end
};
PhaseTimes PhaseTimesOf(const FinishSummary& summary);

// Adds trailing metadata chorus-queue-seconds, chorus-prefill-seconds and chorus-decode-seconds.
// REQUIRES: Finish has not been called.
void AddPhaseTrailers(const FinishSummary& summary, grpc::CallbackServerContext* context);

}  // namespace chorus
