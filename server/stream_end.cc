#include "server/stream_end.h"

#include "absl/time/clock.h"

#include "core/base/field_error.h"
#include "server/names.h"

namespace chorus {
namespace {

constexpr absl::Duration kDeadlineTolerance = absl::Milliseconds(20);

}  // namespace

RequestRecord RecordOf(const Request& request) {
  return {.id = request.id,
          .seed = request.sampling.seed,
          .method = request.fusion.method,
          .num_prompts = static_cast<int32_t>(request.prompts.size()),
          .deadline = request.deadline};
}

void LogStreamEnd(const Logger& logger, std::string_view rpc, const StreamEnd& end) {
  const FinishSummary& summary = end.summary;
  const RequestRecord& request = end.request;
  LogFields fields = {
      {"rpc", std::string(rpc)},
      {"request_id", request.id},
      {"method", std::string(request.method.has_value() ? MethodName(*request.method) : "")},
      {"outcome", absl::StatusCodeToString(end.status.code())},
      {"prompts", int64_t{request.num_prompts}},
      {"prompt_tokens", int64_t{summary.prompt_tokens}},
      {"cached_tokens", int64_t{summary.cached_tokens}},
      {"generated_tokens", int64_t{summary.generated_tokens}},
      {"scored_tokens", int64_t{summary.scored_tokens}},
      {"steps", int64_t{summary.model_steps}},
      {"queue_seconds", absl::ToDoubleSeconds(summary.queue_time)},
      {"first_token_seconds", absl::ToDoubleSeconds(summary.first_token_time)},
      {"total_seconds", absl::ToDoubleSeconds(summary.total_time)}};
  // The field's path only: a message may quote the request.
  if (const auto field = FieldOf(end.status)) fields.emplace_back("field", *field);
  const bool ours = end.status.code() == absl::StatusCode::kInternal;
  if (ours) fields.emplace_back("error", std::string(end.status.message()));
  logger.Log(ours ? Logger::Level::kError : Logger::Level::kInfo, "request", fields);
}

void CancelUnlessLate(Engine& engine, const RequestHandle& handle, absl::Time deadline) {
  if (absl::Now() + kDeadlineTolerance < deadline) engine.Cancel(handle);
}

}  // namespace chorus
