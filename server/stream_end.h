#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

#include "core/engine/engine.h"
#include "core/engine/request.h"
#include "core/engine/token_sink.h"
#include "server/call_info.h"
#include "server/logging.h"

namespace chorus {

// What a stream still knows of a request once the engine has it.
struct RequestRecord {
  std::string id;  // empty if the request could not be parsed
  uint64_t seed = 0;
  std::optional<FusionMethod> method;  // likewise
  int32_t num_prompts = 0;
  absl::Time deadline = absl::InfiniteFuture();
};

RequestRecord RecordOf(const Request& request);

// How one request ended, for the log.
struct StreamEnd {
  RequestRecord request;
  absl::Status status;
  FinishSummary summary;  // counts and times; its texts are never logged
};

// One line. `call` is what the request came by.
void LogStreamEnd(const Logger& logger, const CallInfo& call, const StreamEnd& end);

// One line of a call that is no request of the engine: how it ended, and what it took.
void LogCallEnd(const Logger& logger, const CallInfo& call, const absl::Status& status,
                absl::Duration total);

// One line with all that the caller wrote of the prompt, as JSON: only where that is wanted.
void LogPrompt(const Logger& logger, const v1::Prompt& prompt, const std::string& id);

// Takes a request whose caller is gone out of the engine. gRPC cancels a call whose deadline passes
// by its own timer, which may run a little ahead of the engine's clock: so close to the deadline
// the engine is left to end the request itself, which then counts as DEADLINE_EXCEEDED and not as
// cancelled.
void CancelUnlessLate(Engine& engine, const RequestHandle& handle, absl::Time deadline);

}  // namespace chorus
