#include "server/check.h"

#include <cerrno>
#include <cstring>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

#include "server/free_memory.h"
#include "server/model_setup.h"
#include "server/secrets.h"

namespace chorus {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

void CheckModel(const ModelConfigFlags& model, CheckReport* report) {
  if (const auto text = LoadText(model); !text.ok()) {
    report->problems.push_back(text.status());
  } else {
    report->facts.push_back(absl::StrCat("tokenizer    ", text->tokenizer->vocab_size(), " tokens"));
  }
  const absl::StatusOr<ModelInfo> info = InspectServedModel(model);
  if (!info.ok()) return report->problems.push_back(info.status());
  const int64_t free_bytes = FreeMemoryBytes();
  const int64_t kv_bytes =
      model.kv_cache_bytes > 0
          ? model.kv_cache_bytes
          : DefaultKvCacheBytes(free_bytes - info->weight_bytes, model.workers);
  const int64_t needed = info->weight_bytes + kv_bytes * model.workers;
  report->facts.push_back(absl::StrFormat(
      "model        %s, %.1f million parameters, %s on %s, context %d tokens", info->name,
      info->num_parameters / 1e6, info->dtype, info->device, info->max_positions));
  report->facts.push_back(absl::StrFormat(
      "memory       %.1f MiB of weights, %d worker(s) with %.1f MiB of keys and values: %d tokens "
      "each; %.1f MiB are free",
      info->weight_bytes / kMiB, model.workers, kv_bytes / kMiB,
      kv_bytes / info->kv_bytes_per_token, free_bytes / kMiB));
  if (free_bytes > 0 && needed > free_bytes) {
    report->problems.push_back(absl::ResourceExhaustedError(absl::StrFormat(
        "weights, keys and values need %.1f MiB, %.1f MiB are free: give a smaller "
        "--kv_cache_bytes or fewer --workers",
        needed / kMiB, free_bytes / kMiB)));
  }
}

void CheckCertificate(const SecurityConfig& security, CheckReport* report) {
  if (security.tls_certificate.empty()) {
    report->facts.push_back("TLS          none: plain text");
    return;
  }
  const absl::StatusOr<Certificate> certificate = LoadCertificate(security);
  if (!certificate.ok()) return report->problems.push_back(certificate.status());
  const std::string not_after =
      absl::FormatTime("%Y-%m-%d %H:%M UTC", certificate->not_after, absl::UTCTimeZone());
  report->facts.push_back(absl::StrCat(
      "TLS          ", certificate->subject, ", valid until ", not_after,
      security.tls_client_ca.empty() ? "" : "; clients must show a certificate"));
  if (certificate->not_after < absl::Now() || certificate->not_before > absl::Now()) {
    report->problems.push_back(absl::InvalidArgumentError(
        absl::StrCat("--tls_certificate=", security.tls_certificate, " is not valid now, but from ",
                     absl::FormatTime("%Y-%m-%d %H:%M", certificate->not_before,
                                      absl::UTCTimeZone()),
                     " until ", not_after)));
  }
}

void CheckTokens(const SecurityConfig& security, CheckReport* report) {
  if (security.token_file.empty()) {
    report->facts.push_back("tokens       none are asked for");
    return;
  }
  const absl::StatusOr<BearerTokens> tokens = LoadTokens(security);
  if (!tokens.ok()) return report->problems.push_back(tokens.status());
  report->facts.push_back(absl::StrCat("tokens       ", tokens->size()));
}

// Whether a listener of the address could be opened now. HOST:PORT as Validate takes it.
absl::Status TryToListen(const char* flag, const std::string& address) {
  const size_t colon = address.rfind(':');
  absl::string_view host = absl::string_view(address).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(std::string(host).c_str(), address.substr(colon + 1).c_str(),
                                &hints, &found);
  std::string why = error == 0 ? "" : gai_strerror(error);
  if (error == 0) {
    const int listener = socket(found->ai_family, SOCK_STREAM, 0);
    const int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    const bool is_free = bind(listener, found->ai_addr, found->ai_addrlen) == 0 &&
                         listen(listener, 1) == 0;
    if (!is_free) why = std::strerror(errno);
    close(listener);
    freeaddrinfo(found);
  }
  if (why.empty()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot listen on --", flag, "=", address, ": ", why));
}

void CheckPorts(const NetworkConfig& network, CheckReport* report) {
  const struct {
    const char* flag;
    const std::string& address;
    const char* what;
  } kPorts[] = {{"listen", network.listen, "gRPC         "},
                {"metrics_listen", network.metrics_listen, "metrics      "},
                {"health_listen", network.health_listen, "health       "}};
  for (const auto& port : kPorts) {
    if (port.address.empty()) continue;
    report->facts.push_back(absl::StrCat(port.what, port.address));
    if (absl::Status status = TryToListen(port.flag, port.address); !status.ok()) {
      report->problems.push_back(std::move(status));
    }
  }
}

}  // namespace

CheckReport CheckServing(const ServerConfig& config) {
  CheckReport report;
  CheckModel(config.model, &report);
  CheckPorts(config.network, &report);
  CheckCertificate(config.security, &report);
  CheckTokens(config.security, &report);
  return report;
}

}  // namespace chorus
