#include "server/grpc_server.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

// A client may ask for a sign of life this often.
constexpr absl::Duration kMinPingInterval = absl::Seconds(10);
// Unary calls are quick; this is how long they may take once the server goes down.
constexpr auto kShutdownGrace = std::chrono::milliseconds(500);

// gRPC takes milliseconds as an int, the largest for never.
int Milliseconds(absl::Duration time) {
  return static_cast<int>(
      std::min<int64_t>(absl::ToInt64Milliseconds(time), std::numeric_limits<int>::max()));
}

void SetLimits(const ConnectionLimits& limits, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(limits.max_message_bytes));
  builder->SetResourceQuota(
      grpc::ResourceQuota("chorus").Resize(static_cast<size_t>(limits.memory_bytes)));
  const std::pair<const char*, int> kArguments[] = {
      // With port reuse two servers would silently share one port.
      {GRPC_ARG_ALLOW_REUSEPORT, 0},
      {GRPC_ARG_MAX_METADATA_SIZE, limits.max_metadata_bytes},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(limits.handshake_timeout)},
      {GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(limits.keepalive_time)},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(limits.keepalive_timeout)},
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(kMinPingInterval)},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(limits.max_connection_idle)},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(limits.max_connection_age)},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(limits.max_connection_age_grace)}};
  for (const auto& [name, value] : kArguments) builder->AddChannelArgument(name, value);
}

absl::Status CannotListen(const char* flag, const std::string& address) {
  return absl::UnavailableError(absl::StrCat("cannot listen on --", flag, "=", address,
                                             ": is the port in use? Use another, or port 0"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Create(const Options& options,
                                                               InferenceService* service,
                                                               const Engine* engine) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto result = absl::WrapUnique(new GrpcServer());
  grpc::ServerBuilder builder;
  SetLimits(options.limits, &builder);
  builder.AddListeningPort(options.listen, MakePortCredentials(options.policy), &result->port_);
  if (!options.health_listen.empty()) {
    builder.AddListeningPort(options.health_listen, MakePortCredentials({.is_health_only = true}),
                             &result->health_port_);
  }
  builder.RegisterService(service);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr) {
    const bool is_health = result->port_ != 0;
    return CannotListen(is_health ? "health_listen" : "listen",
                        is_health ? options.health_listen : options.listen);
  }
  result->health_ = std::make_unique<HealthReporter>(
      result->server_->GetHealthCheckService(),
      [engine, limit = options.stuck_after] { return engine->CheckLive(limit); },
      options.on_health_change, options.health_interval);
  return result;
}

GrpcServer::~GrpcServer() {
  if (server_ == nullptr) return;
  health_.reset();
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  server_->Wait();
}

}  // namespace chorus
