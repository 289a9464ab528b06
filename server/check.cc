#include "server/check.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"
#include "server/free_memory.h"
#include "server/model_setup.h"
#include "server/secrets.h"

namespace chorus {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

// Where the model would run, and what is free there for weights, keys and values.
struct Place {
  ServedDevices devices;
  int64_t free_bytes = 0;  // of each device, or of the machine
};

absl::StatusOr<Place> FindPlace(const ModelConfigFlags& model, CheckReport* report) {
  Place place;
  CHORUS_ASSIGN_OR_RETURN(place.devices, ChooseDevices(model));
  report->facts.push_back(
      absl::StrCat("devices      ", place.devices.names(), ": ", place.devices.why));
  if (place.devices.module == nullptr) {
    place.free_bytes = FreeMemoryBytes();
    return place;
  }
  CHORUS_ASSIGN_OR_RETURN(const auto infos, place.devices.module->Devices());
  place.free_bytes = std::numeric_limits<int64_t>::max();
  for (const int32_t device : place.devices.cuda) {
    const CudaDeviceInfo& info = infos.at(static_cast<size_t>(device));
    CHORUS_ASSIGN_OR_RETURN(const int64_t free_bytes, place.devices.module->FreeBytes(device));
    report->facts.push_back(absl::StrFormat("cuda:%-8d%s, %.1f of %.1f MiB are free", device,
                                            info.model, free_bytes / kMiB,
                                            info.total_bytes / kMiB));
    place.free_bytes = std::min(place.free_bytes, free_bytes);
  }
  return place;
}

void CheckMemory(const ModelConfigFlags& model, const ModelInfo& info, const Place& place,
                 CheckReport* report) {
  const int64_t beside_weights = place.free_bytes - info.weight_bytes;
  int64_t kv_bytes = model.kv_cache_bytes;
  if (kv_bytes == 0) {
    kv_bytes = place.devices.module == nullptr
                   ? DefaultKvCacheBytes(beside_weights, model.workers)
                   : DefaultDeviceKvCacheBytes(beside_weights, model.workers);
  }
  const int64_t needed = info.weight_bytes + kv_bytes * model.workers;
  report->facts.push_back(absl::StrFormat(
      "memory       %.1f MiB of weights, %d worker(s)%s with %.1f MiB of keys and values: %d tokens "
      "each; %.1f MiB are free",
      info.weight_bytes / kMiB, model.workers,
      place.devices.module == nullptr ? "" : " on each device", kv_bytes / kMiB,
      kv_bytes / info.kv_bytes_per_token, place.free_bytes / kMiB));
  if (place.free_bytes > 0 && needed > place.free_bytes) {
    report->problems.push_back(absl::ResourceExhaustedError(absl::StrFormat(
        "weights, keys and values need %.1f MiB, %.1f MiB are free: give a smaller "
        "--kv_cache_bytes or fewer --workers",
        needed / kMiB, place.free_bytes / kMiB)));
  }
}

void CheckModel(const ModelConfigFlags& model, CheckReport* report) {
  if (const auto text = LoadText(model); !text.ok()) {
    report->problems.push_back(text.status());
  } else {
    report->facts.push_back(absl::StrCat("tokenizer    ", text->tokenizer->vocab_size(), " tokens"));
  }
  const absl::StatusOr<Place> place = FindPlace(model, report);
  if (!place.ok()) return report->problems.push_back(place.status());
  const absl::StatusOr<ModelInfo> info = InspectServedModel(model, place->devices);
  if (!info.ok()) return report->problems.push_back(info.status());
  report->facts.push_back(absl::StrFormat(
      "model        %s, %.1f million parameters, %s on %s, context %d tokens", info->name,
      info->num_parameters / 1e6, info->dtype, info->device, info->max_positions));
  CheckMemory(model, *info, *place, report);
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
