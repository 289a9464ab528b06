#pragma once

#include "absl/status/status.h"

namespace grpc {
class Status;
}  // namespace grpc
namespace google::rpc {
class Status;
}  // namespace google::rpc

namespace chorus {

// A gRPC status as an absl::Status of the same code. The message is one line: the server's own,
// then, where they add something, the fields of a google.rpc.BadRequest detail as
// "field: description" and the delay of a google.rpc.RetryInfo. Details that cannot be read are
// left out: the code and the server's message always arrive.
absl::Status ToAbslStatus(const grpc::Status& status);

// The same of a google.rpc.Status: how one request of GenerateMany ended.
absl::Status ToAbslStatus(const google::rpc::Status& status);

}  // namespace chorus
