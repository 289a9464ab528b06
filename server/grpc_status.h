#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace chorus {

// The one place where a Status of the core becomes one of gRPC. The message is clipped to 1 KiB (it
// travels in a header) and made valid UTF-8. grpc-status-details-bin gets a google.rpc.Status with
//   INVALID_ARGUMENT    google.rpc.BadRequest: field, and "VALUE is not valid: LIMIT"
//   RESOURCE_EXHAUSTED  google.rpc.RetryInfo: when to ask again
grpc::Status ToGrpcStatus(const absl::Status& status);

// The same as a message: what one request of many ends with. REQUIRES: !status.ok().
google::rpc::Status ToRpcStatus(const absl::Status& status);

}  // namespace chorus
