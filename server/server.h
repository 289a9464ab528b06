#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "core/base/clock.h"
#include "core/engine/engine.h"
#include "core/engine/model_runner.h"
#include "core/text/prompt_template.h"
#include "core/text/tokenizer.h"
#include "server/config.h"
#include "server/grpc_server.h"
#include "server/inference_service.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/metrics_exposer.h"
#include "server/parse_request.h"
#include "server/refusal_log.h"
#include "server/secrets.h"
#include "server/task_pool.h"

namespace chorus {

// Everything that serves, put together: engine, gRPC, metrics page. main gives it torch runners,
// tests give it fakes. Used by one thread; members are destroyed last to first.
class Server {
 public:
  // Listens and serves on return. `tokenizer` and `logger` outlive the server. UNAVAILABLE if a
  // port cannot be had; errors of Engine::Create and Secrets::Create.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerConfig& config, const Tokenizer* tokenizer, TextConfig text_config,
      std::vector<std::unique_ptr<ModelRunner>> runners, const Logger* logger);
  ~Server();

  // Health says NOT_SERVING; after the configuration's drain_delay, during which load balancers turn
  // to other servers, admission stops and running streams may finish within `timeout`; what is left
  // then ends with UNAVAILABLE. True if everything ended by itself. Calls still open after it
  // are cut by the destructor.
  bool Drain(absl::Duration timeout);

  int grpc_port() const { return grpc_->port(); }
  int metrics_port() const { return exposer_ == nullptr ? 0 : exposer_->port(); }
  int health_port() const { return grpc_->health_port(); }  // 0: none
  Engine& engine() { return *engine_; }
  ServerMetrics& metrics() { return metrics_; }

 private:
  Server(const ServerConfig& config, int32_t num_workers, const Logger* logger);

  const Logger* const logger_;
  const absl::Duration drain_delay_;
  ServerMetrics metrics_;
  RefusalLog refusals_;
  std::unique_ptr<Secrets> secrets_;
  std::unique_ptr<MetricsExposer> exposer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<RequestParser> parser_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<TaskPool> pool_;    // its tasks use the service
  std::unique_ptr<GrpcServer> grpc_;  // its calls use everything above
};

}  // namespace chorus
