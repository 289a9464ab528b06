#include "client/grpc_error.h"

#include <string>
#include <vector>

#include <grpcpp/support/status.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace chorus {
namespace {

// What the details say beyond `message`, one entry each.
std::vector<std::string> ReadableDetails(const google::rpc::Status& status,
                                         const std::string& message) {
  std::vector<std::string> lines;
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry_info;
    if (detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        if (absl::StrContains(message, violation.field()) &&
            absl::StrContains(message, violation.description())) {
          continue;
        }
        lines.push_back(absl::StrCat(violation.field(), ": ", violation.description()));
      }
    } else if (detail.UnpackTo(&retry_info)) {
      const absl::Duration delay = absl::Seconds(retry_info.retry_delay().seconds()) +
                                   absl::Nanoseconds(retry_info.retry_delay().nanos());
      lines.push_back(absl::StrCat("try again in ", absl::FormatDuration(delay)));
    }
  }
  return lines;
}

absl::Status MakeStatus(int code, std::string message, const google::rpc::Status& details) {
  const std::vector<std::string> lines = ReadableDetails(details, message);
  if (!lines.empty()) absl::StrAppend(&message, " (", absl::StrJoin(lines, "; "), ")");
  return absl::Status(static_cast<absl::StatusCode>(code),
                      absl::StrReplaceAll(message, {{"\n", " "}}));
}

}  // namespace

absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) details.Clear();
  return MakeStatus(status.error_code(), status.error_message(), details);
}

absl::Status ToAbslStatus(const google::rpc::Status& status) {
  return MakeStatus(status.code(), status.message(), status);
}

}  // namespace chorus
