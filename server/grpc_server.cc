#include "server/grpc_server.h"

#include <chrono>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace chorus {
namespace {

// A TokenizeRequest holds up to 16 MiB of text; the rest is room for the message around it.
constexpr int kMaxMessageBytes = 17 << 20;
// Unary calls are quick; this is how long they may take once the server goes down.
constexpr auto kShutdownGrace = std::chrono::milliseconds(500);

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Create(const Options& options,
                                                               InferenceService* service,
                                                               const Engine* engine) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto result = absl::WrapUnique(new GrpcServer());
  grpc::ServerBuilder builder;
  // With port reuse two servers would silently share one port.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &result->port_);
  builder.RegisterService(service);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || result->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on --listen=", options.listen,
                                               ": is the port in use? Use another, or port 0"));
  }
  result->health_ = std::make_unique<HealthReporter>(
      result->server_->GetHealthCheckService(),
      [engine, limit = options.stuck_after] { return engine->IsLive(limit); },
      options.health_interval);
  return result;
}

GrpcServer::~GrpcServer() {
  if (server_ == nullptr) return;
  health_.reset();
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  server_->Wait();
}

}  // namespace chorus
