#pragma once

#include <memory>
#include <string>

#include <grpcpp/channel.h>

#include "absl/status/statusor.h"

#include "client/chorus_client.h"

namespace chorus {

// True if nothing sent to `target` leaves this machine.
bool IsLocalTarget(const std::string& target);

// A connected channel to `target`, as `options` say. Errors as ChorusClient::Connect.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& target,
                                                           const ClientOptions& options);

}  // namespace chorus
