#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include <grpcpp/security/server_credentials.h>

#include "server/secrets.h"

namespace chorus {

// What one port asks of those who come to it. All outlive the server.
struct PortPolicy {
  // With TLS if it has a certificate, and a token in every call but health checks if it has tokens;
  // null: neither.
  const Secrets* secrets = nullptr;
  // Answers grpc.health.v1 and nothing else.
  bool is_health_only = false;
  // Told of every refused call: its path, "/chorus.v1.Inference/Generate". On gRPC's threads, must
  // be quick; may be null.
  std::function<void(std::string_view path)> on_refused;
};

// The credentials of a port that goes by `policy`. Calls are looked at in one place for all
// methods, those of reflection and unknown ones included, before any handler or message: what is
// refused costs no more than its headers. Refused are
//   UNAUTHENTICATED   no token, or a wrong one
//   UNIMPLEMENTED     anything but a health check on a port for these
//
// Why not gRPC's own: InsecureServerCredentials() of 1.51 aborts when it is given an
// AuthMetadataProcessor, an interceptor cannot refuse a call, and an authorization policy knows no
// secrets. So this class makes both kinds of port by the C API below them.
std::shared_ptr<grpc::ServerCredentials> MakePortCredentials(PortPolicy policy);

}  // namespace chorus
