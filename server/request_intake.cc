#include "server/request_intake.h"

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace chorus {

absl::Status Guarded(const std::function<absl::Status()>& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("unexpected: ", error.what()));
  }
}

template <typename Proto>
bool RequestIntake::Parse(const Proto& proto, absl::Time deadline, const Done& done) {
  if (RequestParser::TextBytes(proto) <= kInlineTextBytes) {
    done(ParseNow(proto, deadline));
    return true;
  }
  // A copy: the caller's message goes when a cancelled call ends.
  return pool_.TryAdd([this, deadline, done, copy = std::make_shared<const Proto>(proto)] {
    done(ParseNow(*copy, deadline));
  });
}

template bool RequestIntake::Parse(const v1::GenerateRequest&, absl::Time, const Done&);
template bool RequestIntake::Parse(const v1::ScoreRequest&, absl::Time, const Done&);

template <typename Proto>
absl::StatusOr<Request> RequestIntake::ParseNow(const Proto& proto, absl::Time deadline) {
  Request request;
  const absl::Status status = Guarded([&]() -> absl::Status {
    absl::StatusOr<Request> parsed = parser_.Parse(proto, DrawDefaults());
    if (!parsed.ok()) return parsed.status();
    request = *std::move(parsed);
    request.deadline = deadline;
    return absl::OkStatus();
  });
  if (status.ok()) {
    if (on_parsed_) on_parsed_(proto.prompt(), request.id);
    return request;
  }
  observer_.OnRejected(RejectReason::kInvalid);
  return status;
}

RequestDefaults RequestIntake::DrawDefaults() {
  absl::MutexLock lock(&random_mutex_);
  return RequestDefaults{absl::StrFormat("chorus-%016x", absl::Uniform<uint64_t>(random_)),
                         absl::Uniform<uint64_t>(random_)};
}

}  // namespace chorus
