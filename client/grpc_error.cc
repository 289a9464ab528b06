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
std::vector<std::string> ReadableDetails(const std::string& serialized,
                                         const std::string& message) {
  std::vector<std::string> lines;
  google::rpc::Status status;
  if (!status.ParseFromString(serialized)) return lines;
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

}  // namespace

absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  const std::vector<std::string> details = ReadableDetails(status.error_details(), message);
  if (!details.empty()) absl::StrAppend(&message, " (", absl::StrJoin(details, "; "), ")");
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      absl::StrReplaceAll(message, {{"\n", " "}}));
}

}  // namespace chorus
