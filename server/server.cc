#include "server/server.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"

#include "core/base/status_macros.h"

namespace chorus {

Server::Server(const ServerConfig& config, int32_t num_workers, const Logger* logger)
    : logger_(logger),
      drain_delay_(config.network.drain_delay),
      metrics_(num_workers),
      refusals_(logger) {
  metrics_.SetLimits(config.engine.max_queued_requests, config.network.drain_timeout);
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const ServerConfig& config, const Tokenizer* tokenizer, TextConfig text_config,
    std::vector<std::unique_ptr<ModelRunner>> runners, const Logger* logger) {
  const auto num_workers = static_cast<int32_t>(runners.size());
  auto server = absl::WrapUnique(new Server(config, num_workers, logger));
  CHORUS_ASSIGN_OR_RETURN(
      server->secrets_,
      Secrets::Create(config.security, logger, [raw = server.get()](absl::Time not_after) {
        raw->metrics_.SetCertificateExpiry(not_after);
      }));
  if (!config.network.metrics_listen.empty()) {
    CHORUS_ASSIGN_OR_RETURN(server->exposer_, MetricsExposer::Create(config.network.metrics_listen,
                                                                     server->metrics_.registry()));
  }
  EngineOptions engine_options = config.engine;
  engine_options.eos_token_ids = text_config.eos_token_ids;
  CHORUS_ASSIGN_OR_RETURN(server->engine_,
                          Engine::Create(std::move(engine_options), std::move(runners), tokenizer,
                                         &server->metrics_, Clock::Real()));
  const ModelInfo& info = server->engine_->model_info();
  server->metrics_.SetModelInfo(info);
  server->parser_ = std::make_unique<RequestParser>(
      tokenizer, std::move(text_config),
      ParseLimits{info.vocab_size, config.engine.max_request_tokens});
  // The pool is destroyed before the service and engine that its tasks use.
  auto pool =
      std::make_unique<TaskPool>(config.network.tokenizer_threads, config.network.tokenizer_queue);
  InferenceService::Dependencies dependencies;
  dependencies.engine = server->engine_.get();
  dependencies.tokenizer = tokenizer;
  dependencies.parser = server->parser_.get();
  dependencies.observer = &server->metrics_;
  dependencies.logger = logger;
  dependencies.pool = pool.get();
  dependencies.log_prompts = config.log.prompts;
  dependencies.num_workers = num_workers;
  dependencies.stream_buffer_events = config.network.stream_buffer_events;
  dependencies.max_stream_requests = config.network.max_stream_requests;
  server->service_ = std::make_unique<InferenceService>(dependencies);
  server->pool_ = std::move(pool);
  GrpcServer::Options grpc_options;
  grpc_options.listen = config.network.listen;
  grpc_options.health_listen = config.network.health_listen;
  grpc_options.policy.secrets = server->secrets_.get();
  grpc_options.policy.on_refused = [raw = server.get()](std::string_view path) {
    raw->metrics_.OnUnauthenticated();
    raw->refusals_.Add(path);
  };
  grpc_options.limits = config.connections;
  grpc_options.stuck_after = config.network.stuck_after;
  grpc_options.on_health_change = [logger](const absl::Status& status) {
    if (status.ok()) {
      logger->Log(Logger::Level::kInfo, "live", {});
    } else {
      logger->Log(Logger::Level::kError, "not_live", {{"why", std::string(status.message())}});
    }
  };
  CHORUS_ASSIGN_OR_RETURN(server->grpc_, GrpcServer::Create(grpc_options, server->service_.get(),
                                                            server->engine_.get()));
  return server;
}

Server::~Server() = default;

bool Server::Drain(absl::Duration timeout) {
  // What the timeout is counted from.
  metrics_.StartDraining(absl::Now() + drain_delay_);
  grpc_->SetDraining();
  if (drain_delay_ > absl::ZeroDuration()) {
    logger_->Log(Logger::Level::kInfo, "leaving",
                 {{"drain_delay", absl::FormatDuration(drain_delay_)}});
    absl::SleepFor(drain_delay_);
  }
  const absl::Time deadline = absl::Now() + timeout;
  service_->StartDraining();
  logger_->Log(Logger::Level::kInfo, "draining",
               {{"running", int64_t{engine_->num_running()}},
                {"waiting", int64_t{engine_->num_waiting()}},
                {"timeout", absl::FormatDuration(timeout)}});
  const bool all_ended = engine_->Drain(timeout);
  // What the engine has finished may still lie in stream buffers: slow readers get what is left of
  // the time, and the ends just sent get a moment in any case.
  const absl::Duration left = std::max(deadline - absl::Now(), absl::Seconds(1));
  const bool all_read = service_->WaitUntilIdle(left);
  return all_ended && all_read;
}

}  // namespace chorus
