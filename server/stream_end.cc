#include "server/stream_end.h"

#include <utility>

#include <google/protobuf/util/json_util.h>

#include "absl/time/clock.h"

#include "core/base/field_error.h"
#include "server/names.h"

namespace chorus {
namespace {

constexpr absl::Duration kDeadlineTolerance = absl::Milliseconds(20);

void LogEnd(const Logger& logger, const absl::Status& status, LogFields fields) {
  // The field's path only: a message may quote the request.
  if (const auto field = FieldOf(status)) fields.emplace_back("field", *field);
  const bool ours = status.code() == absl::StatusCode::kInternal;
  if (ours) fields.emplace_back("error", std::string(status.message()));
  logger.Log(ours ? Logger::Level::kError : Logger::Level::kInfo, "request", fields);
}

}  // namespace

RequestRecord RecordOf(const Request& request) {
  return {.id = request.id,
          .seed = request.sampling.seed,
          .method = request.fusion.method,
          .num_prompts = static_cast<int32_t>(request.prompts.size()),
          .deadline = request.deadline};
}

void LogStreamEnd(const Logger& logger, const CallInfo& call, const StreamEnd& end) {
  const FinishSummary& summary = end.summary;
  const RequestRecord& request = end.request;
  const PhaseTimes times = PhaseTimesOf(summary);
  LogFields fields = DescribeCall(call);
  const LogFields more = {
      {"request_id", request.id},
      {"method", std::string(request.method.has_value() ? MethodName(*request.method) : "")},
      {"outcome", absl::StatusCodeToString(end.status.code())},
      {"prompts", int64_t{request.num_prompts}},
      {"prompt_tokens", int64_t{summary.prompt_tokens}},
      {"cached_tokens", int64_t{summary.cached_tokens}},
      {"generated_tokens", int64_t{summary.generated_tokens}},
      {"scored_tokens", int64_t{summary.scored_tokens}},
      {"steps", int64_t{summary.model_steps}},
      {"queue_seconds", absl::ToDoubleSeconds(times.queue)},
      {"prefill_seconds", absl::ToDoubleSeconds(times.prefill)},
      {"decode_seconds", absl::ToDoubleSeconds(times.decode)},
      {"first_token_seconds", absl::ToDoubleSeconds(summary.first_token_time)},
      {"total_seconds", absl::ToDoubleSeconds(summary.total_time)}};
  fields.insert(fields.end(), more.begin(), more.end());
  LogEnd(logger, end.status, std::move(fields));
}

void LogCallEnd(const Logger& logger, const CallInfo& call, const absl::Status& status,
                absl::Duration total) {
  LogFields fields = DescribeCall(call);
  fields.emplace_back("outcome", absl::StatusCodeToString(status.code()));
  fields.emplace_back("total_seconds", absl::ToDoubleSeconds(total));
  LogEnd(logger, status, std::move(fields));
}

void LogPrompt(const Logger& logger, const v1::Prompt& prompt, const std::string& id) {
  std::string json;
  // Cannot fail: the message was parsed, so its texts are UTF-8.
  (void)google::protobuf::util::MessageToJsonString(prompt, &json);
  logger.Log(Logger::Level::kInfo, "prompt", {{"request_id", id}, {"prompt", json}});
}

void CancelUnlessLate(Engine& engine, const RequestHandle& handle, absl::Time deadline) {
  if (absl::Now() + kDeadlineTolerance < deadline) engine.Cancel(handle);
}

}  // namespace chorus
