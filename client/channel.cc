#include "client/channel.h"

#include <chrono>
#include <fstream>
#include <iterator>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "chorus/v1/inference.grpc.pb.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

// The last message of a stream repeats every prompt's whole answer: gRPC's default of 4 MiB would
// cut off long ones.
constexpr int kMaxReceiveBytes = 64 << 20;

absl::StatusOr<std::string> ReadPem(const char* what, const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file && absl::StrContains(text, "-----BEGIN ")) return text;
  return absl::InvalidArgumentError(
      absl::StrCat("the ", what, " ", path, " cannot be read, or is no PEM file"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  if (tls->private_key.empty() != tls->certificate_chain.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("certificate and key belong together; the ",
                     tls->private_key.empty() ? "key" : "certificate", " is missing"));
  }
  grpc::SslCredentialsOptions options;
  CHORUS_ASSIGN_OR_RETURN(options.pem_root_certs,
                          ReadPem("CA file", tls->root_certificates));
  CHORUS_ASSIGN_OR_RETURN(options.pem_private_key, ReadPem("key file", tls->private_key));
  CHORUS_ASSIGN_OR_RETURN(options.pem_cert_chain,
                          ReadPem("certificate file", tls->certificate_chain));
  return grpc::SslCredentials(options);
}

grpc::ChannelArguments MakeArguments(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // gRPC would otherwise send even a loopback call through the http_proxy of the environment.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, options.has_own_connection ? 1 : 0);
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  return arguments;
}

// Why no connection comes about, as gRPC tells whoever calls on the channel.
std::string ReasonOf(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  v1::GetModelInfoResponse response;
  const grpc::Status status =
      v1::Inference::NewStub(channel)->GetModelInfo(&context, v1::GetModelInfoRequest(), &response);
  return absl::StrReplaceAll(status.error_message(), {{"\n", " "}});
}

// Waits until the channel is connected. A refused connection ends the wait at once: gRPC itself
// would go on trying.
absl::Status WaitUntilConnected(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& target, const ClientOptions& options) {
  const auto deadline = absl::ToChronoTime(absl::Now() + options.connect_timeout);
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
      if (!options.tls.has_value()) {
        return absl::UnavailableError(absl::StrCat("no server answers at ", target));
      }
      return absl::UnavailableError(
          absl::StrCat("no TLS with ", target, ": ", ReasonOf(channel)));
    }
    if (!channel->WaitForStateChange(state, deadline)) {
      return absl::UnavailableError(absl::StrCat("no server answers at ", target, " within ",
                                                 absl::FormatDuration(options.connect_timeout)));
    }
    state = channel->GetState(/*try_to_connect=*/true);
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLocalTarget(const std::string& target) {
  if (absl::StartsWith(target, "unix:")) return true;
  absl::string_view host = target;
  if (const size_t scheme = host.find("///"); scheme != absl::string_view::npos) {
    host.remove_prefix(scheme + 3);
  }
  absl::ConsumePrefix(&host, "dns:");
  host = host.substr(0, host.rfind(':'));
  return host == "localhost" || host == "[::1]" ||
         (absl::StartsWith(host, "127.") &&
          host.find_first_not_of("0123456789.") == absl::string_view::npos);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& target,
                                                           const ClientOptions& options) {
  if (!options.token.empty() && !options.tls.has_value() && !IsLocalTarget(target)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token would travel unencrypted to ", target, ": use TLS"));
  }
  CHORUS_ASSIGN_OR_RETURN(const auto credentials, MakeCredentials(options.tls));
  std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(target, credentials, MakeArguments(options));
  CHORUS_RETURN_IF_ERROR(WaitUntilConnected(channel, target, options));
  return channel;
}

}  // namespace chorus
