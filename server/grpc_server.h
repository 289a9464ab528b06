#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/engine/engine.h"
#include "server/config.h"
#include "server/health.h"
#include "server/inference_service.h"
#include "server/port_credentials.h"

namespace grpc {
class Server;
}

namespace chorus {

// The listening gRPC server: chorus.v1.Inference, grpc.health.v1.Health and server reflection.
class GrpcServer {
 public:
  struct Options {
    std::string listen;         // HOST:PORT; port 0 takes a free one
    std::string health_listen;  // a second port, for health checks only; empty: none
    PortPolicy policy;          // of the first port
    ConnectionLimits limits;
    absl::Duration stuck_after = absl::Seconds(60);  // see Engine::CheckLive
    absl::Duration health_interval = absl::Seconds(1);
    // Hears of it when a worker is no longer live, and, with OK, when all are again.
    std::function<void(const absl::Status&)> on_health_change = [](const absl::Status&) {};
  };
  // Listens and serves. UNAVAILABLE if it cannot listen there. `service` and `engine` outlive it.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Create(const Options& options,
                                                            InferenceService* service,
                                                            const Engine* engine);
  // Cancels open calls and waits until gRPC has let go of all of them.
  ~GrpcServer();

  int port() const { return port_; }
  int health_port() const { return health_port_; }  // 0: none

  // Health says NOT_SERVING from now on; calls still go through.
  void SetDraining() { health_->SetDraining(); }

 private:
  GrpcServer() = default;

  int port_ = 0;
  int health_port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HealthReporter> health_;  // goes before the server that owns its service
};

}  // namespace chorus
