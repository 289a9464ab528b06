#include "server/port_credentials.h"

#include <string>
#include <utility>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "core/base/check.h"

namespace chorus {
namespace {

constexpr std::string_view kHealthService = "/grpc.health.v1.Health/";
// How often gRPC looks at the files of Secrets::certificate_paths, in seconds.
constexpr unsigned kWatchSeconds = 1;

std::string_view TextOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

struct Verdict {
  grpc_status_code code = GRPC_STATUS_OK;
  const char* message = nullptr;
};

// `authorization` is empty if there is none; several headers count as none.
Verdict Judge(const PortPolicy& policy, std::string_view path, std::string_view authorization) {
  if (path.substr(0, kHealthService.size()) == kHealthService) return {};
  if (policy.is_health_only) {
    return {GRPC_STATUS_UNIMPLEMENTED, "this port answers grpc.health.v1.Health only"};
  }
  if (authorization.empty()) {
    return {GRPC_STATUS_UNAUTHENTICATED,
            "a token is needed: send metadata 'authorization: Bearer TOKEN'"};
  }
  if (policy.secrets->Accepts(authorization)) return {};
  return {GRPC_STATUS_UNAUTHENTICATED,
          "the token is not known here: 'authorization' must be 'Bearer TOKEN' with a valid one"};
}

void Process(void* state, grpc_auth_context* context, const grpc_metadata* metadata,
             size_t num_metadata, grpc_process_auth_metadata_done_cb done, void* call) {
  const auto& policy = *static_cast<const PortPolicy*>(state);
  std::string_view path;
  const grpc_metadata* authorization = nullptr;
  size_t num_authorizations = 0;
  for (size_t i = 0; i < num_metadata; ++i) {
    const std::string_view key = TextOf(metadata[i].key);
    if (key == ":path") path = TextOf(metadata[i].value);
    if (key != "authorization") continue;
    authorization = &metadata[i];
    ++num_authorizations;
  }
  const Verdict verdict =
      Judge(policy, path, num_authorizations == 1 ? TextOf(authorization->value) : "");
  if (verdict.code != GRPC_STATUS_OK && policy.on_refused) policy.on_refused(path);
  // An accepted token goes no further: no handler can put it into a log or an error by mistake.
  const bool take = verdict.code == GRPC_STATUS_OK && num_authorizations == 1;
  done(call, take ? authorization : nullptr, take ? 1 : 0, nullptr, 0, verdict.code,
       verdict.message);
}

// With a certificate that may change while the port is open: gRPC's FileWatcherCertificateProvider,
// pointed at files that hold nothing but checked pairs, for by itself it takes whatever stands in a
// file and refuses all new connections while that is bad. (The older SslServerCredentials with a
// fetcher keep the old pair, but swap it without a lock.)
grpc_server_credentials* MakeTlsCredentials(const Secrets& secrets) {
  namespace tls = grpc::experimental;
  const Secrets::Paths paths = secrets.certificate_paths();
  tls::TlsServerCredentialsOptions options(std::make_shared<tls::FileWatcherCertificateProvider>(
      paths.key, paths.chain, paths.client_ca, kWatchSeconds));
  options.watch_identity_key_cert_pairs();
  if (secrets.has_client_ca()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc_tls_server_credentials_create(options.c_credentials_options());
}

class PortCredentials final : public grpc::ServerCredentials {
 public:
  explicit PortCredentials(PortPolicy policy) {
    const bool has_tls = policy.secrets != nullptr && policy.secrets->has_certificate();
    const bool has_tokens = policy.secrets != nullptr && policy.secrets->has_tokens();
    credentials_ = has_tls ? MakeTlsCredentials(*policy.secrets)
                           : grpc_insecure_server_credentials_create();
    if (!has_tokens && !policy.is_health_only) return;
    const grpc_auth_metadata_processor processor = {
        Process, [](void* state) { delete static_cast<PortPolicy*>(state); },
        new PortPolicy(std::move(policy))};
    grpc_server_credentials_set_auth_metadata_processor(credentials_, processor);
  }
  ~PortCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    CHECK(false);  // the policy is all there is
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* credentials_ = nullptr;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakePortCredentials(PortPolicy policy) {
  return std::make_shared<PortCredentials>(std::move(policy));
}

}  // namespace chorus
