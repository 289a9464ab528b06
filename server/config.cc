#include "server/config.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "core/base/status_macros.h"
#include "server/devices.h"

namespace chorus {
namespace {

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckOneOf(std::string_view flag, const std::string& value,
                        std::initializer_list<const char*> allowed) {
  for (const char* candidate : allowed) {
    if (value == candidate) return absl::OkStatus();
  }
  return Bad("--", std::string(flag), "=", value, " is not known: use one of ",
             absl::StrJoin(allowed, ", "));
}

absl::Status CheckRange(std::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Bad("--", std::string(flag), "=", value, " is out of range: use ", low, "..", high);
}

// HOST:PORT with a port in 0..65535; IPv6 hosts in brackets.
absl::Status CheckAddress(std::string_view flag, const std::string& address) {
  const size_t colon = address.rfind(':');
  int32_t port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return Bad("--", std::string(flag), "=", address,
               " is not HOST:PORT with a port in 0..65535, for instance 127.0.0.1:50051");
  }
  return absl::OkStatus();
}

absl::Status CheckDevices(const ModelConfigFlags& model) {
  CHORUS_ASSIGN_OR_RETURN(const DeviceList devices, ParseDevices(model.devices));
  if (devices.cuda.empty() || model.dtype != "float32") return absl::OkStatus();
  return Bad("--dtype=float32 is for the CPU only: --devices=", model.devices,
             " takes bfloat16 (or auto)");
}

absl::Status ValidateModel(const ModelConfigFlags& model) {
  if (model.directory.empty() && model.random_weights.empty()) {
    return Bad(
        "--model is missing: name a Hugging Face model directory, "
        "for instance --model=models/smollm2-135m-instruct");
  }
  CHORUS_RETURN_IF_ERROR(CheckOneOf("dtype", model.dtype, {"auto", "float32", "bfloat16"}));
  CHORUS_RETURN_IF_ERROR(CheckDevices(model));
  if (!model.random_weights.empty()) {
    CHORUS_RETURN_IF_ERROR(CheckOneOf("random_weights", model.random_weights,
                                      {"llama-3.2-3b", "llama-3.1-8b", "smollm2-135m"}));
  }
  CHORUS_RETURN_IF_ERROR(CheckRange("workers", model.workers, 1, 64));
  CHORUS_RETURN_IF_ERROR(CheckRange("threads", model.threads, 0, 1024));
  if (model.kv_cache_bytes == 0) return absl::OkStatus();
  return CheckRange("kv_cache_bytes", model.kv_cache_bytes, int64_t{1} << 16, int64_t{1} << 44);
}

absl::Status ValidateNetwork(const NetworkConfig& network) {
  CHORUS_RETURN_IF_ERROR(CheckAddress("listen", network.listen));
  if (!network.metrics_listen.empty()) {
    CHORUS_RETURN_IF_ERROR(CheckAddress("metrics_listen", network.metrics_listen));
  }
  if (!network.health_listen.empty()) {
    CHORUS_RETURN_IF_ERROR(CheckAddress("health_listen", network.health_listen));
  }
  if (network.drain_delay < absl::ZeroDuration() || network.drain_delay > absl::Hours(1)) {
    return Bad("--drain_delay=", absl::FormatDuration(network.drain_delay),
               " is out of range: use 0s..1h");
  }
  if (network.drain_timeout < absl::ZeroDuration() || network.drain_timeout > absl::Hours(24)) {
    return Bad("--drain_timeout=", absl::FormatDuration(network.drain_timeout),
               " is out of range: use 0s..24h");
  }
  if (network.stuck_after < absl::Seconds(1) || network.stuck_after > absl::Hours(24)) {
    return Bad("--stuck_after=", absl::FormatDuration(network.stuck_after),
               " is out of range: use 1s..24h");
  }
  CHORUS_RETURN_IF_ERROR(
      CheckRange("stream_buffer_events", network.stream_buffer_events, 1, 1 << 20));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_stream_requests", network.max_stream_requests, 1, 1 << 16));
  CHORUS_RETURN_IF_ERROR(CheckRange("tokenizer_threads", network.tokenizer_threads, 1, 64));
  return CheckRange("tokenizer_queue", network.tokenizer_queue, 1, 1 << 20);
}

absl::Status CheckFilesBelongTogether(const SecurityConfig& security) {
  if (security.tls_certificate.empty() != security.tls_key.empty()) {
    return Bad("--tls_certificate and --tls_key belong together: ",
               security.tls_key.empty() ? "--tls_key" : "--tls_certificate", " is missing");
  }
  if (!security.tls_client_ca.empty() && security.tls_certificate.empty()) {
    return Bad("--tls_client_ca=", security.tls_client_ca,
               " needs TLS: give --tls_certificate and --tls_key too");
  }
  return absl::OkStatus();
}

absl::Status ValidateSecurity(const SecurityConfig& security, const std::string& listen) {
  CHORUS_RETURN_IF_ERROR(CheckFilesBelongTogether(security));
  if (security.reload_interval < absl::Seconds(1) || security.reload_interval > absl::Hours(24)) {
    return Bad("--reload_interval=", absl::FormatDuration(security.reload_interval),
               " is out of range: use 1s..24h");
  }
  if (IsLoopback(listen) || security.insecure) return absl::OkStatus();
  const bool is_private = !security.tls_certificate.empty();
  const bool is_guarded = !security.token_file.empty() || !security.tls_client_ca.empty();
  if (is_private && is_guarded) return absl::OkStatus();
  return Bad("--listen=", listen, " can be reached from other machines, and ",
             is_private   ? "anyone could call: give --token_file or --tls_client_ca"
             : is_guarded ? "anyone on the way could read along: give --tls_certificate and --tls_key"
                          : "anyone could call and read along: give --tls_certificate, --tls_key "
                            "and --token_file (or --tls_client_ca)",
             ", or --insecure if that is meant");
}

absl::Status CheckTime(std::string_view flag, absl::Duration value, absl::Duration low) {
  if (value >= low && (value <= absl::Hours(24 * 365) || value == absl::InfiniteDuration())) {
    return absl::OkStatus();
  }
  return Bad("--", std::string(flag), "=", absl::FormatDuration(value), " is out of range: use ",
             absl::FormatDuration(low), "..8760h, or inf");
}

absl::Status ValidateConnections(const ConnectionLimits& limits) {
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_message_bytes", limits.max_message_bytes, 1 << 10, 1 << 30));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_metadata_bytes", limits.max_metadata_bytes, 1 << 10, 1 << 20));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_concurrent_streams", limits.max_concurrent_streams, 1, 1 << 20));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("grpc_memory_bytes", limits.memory_bytes, 16 << 20, int64_t{1} << 44));
  const absl::Duration low = absl::Seconds(1);
  CHORUS_RETURN_IF_ERROR(CheckTime("handshake_timeout", limits.handshake_timeout, low));
  CHORUS_RETURN_IF_ERROR(CheckTime("keepalive_time", limits.keepalive_time, low));
  CHORUS_RETURN_IF_ERROR(CheckTime("keepalive_timeout", limits.keepalive_timeout, low));
  CHORUS_RETURN_IF_ERROR(CheckTime("max_connection_idle", limits.max_connection_idle, low));
  CHORUS_RETURN_IF_ERROR(CheckTime("max_connection_age", limits.max_connection_age, low));
  return CheckTime("max_connection_age_grace", limits.max_connection_age_grace,
                   absl::ZeroDuration());
}

absl::Status CheckNotNegative(std::string_view flag, absl::Duration value) {
  if (value >= absl::ZeroDuration()) return absl::OkStatus();
  return Bad("--", std::string(flag), "=", absl::FormatDuration(value),
             " is negative: use 0s or more, or inf");
}

absl::Status ValidateEngine(const EngineOptions& engine) {
  CHORUS_RETURN_IF_ERROR(CheckRange("max_queued_requests", engine.max_queued_requests, 1, 1 << 20));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_queued_tokens", engine.max_queued_tokens, 1, int64_t{1} << 40));
  CHORUS_RETURN_IF_ERROR(
      CheckRange("max_running_requests", engine.max_running_requests, 1, 1 << 16));
  CHORUS_RETURN_IF_ERROR(CheckRange("max_explain_requests", engine.max_explain_requests, 1, 1 << 16));
  CHORUS_RETURN_IF_ERROR(CheckRange("max_step_rows", engine.max_step_rows, 1, 1 << 20));
  CHORUS_RETURN_IF_ERROR(CheckRange("prompt_share_rows", engine.prompt_share_rows, 1, 1 << 20));
  CHORUS_RETURN_IF_ERROR(CheckRange("max_idle_cache_tokens", engine.max_idle_cache_tokens, 0,
                                    std::numeric_limits<int32_t>::max()));
  CHORUS_RETURN_IF_ERROR(CheckNotNegative("max_queue_delay", engine.max_queue_delay));
  CHORUS_RETURN_IF_ERROR(CheckNotNegative("priority_ageing", engine.priority_ageing));
  CHORUS_RETURN_IF_ERROR(CheckNotNegative("max_reader_stall", engine.max_reader_stall));
  return CheckRange("max_request_tokens", engine.max_request_tokens, 2, 1 << 24);
}

}  // namespace

absl::Status Validate(const ServerConfig& config) {
  CHORUS_RETURN_IF_ERROR(ValidateModel(config.model));
  CHORUS_RETURN_IF_ERROR(ValidateNetwork(config.network));
  CHORUS_RETURN_IF_ERROR(ValidateSecurity(config.security, config.network.listen));
  CHORUS_RETURN_IF_ERROR(ValidateConnections(config.connections));
  CHORUS_RETURN_IF_ERROR(
      CheckOneOf("log_level", config.log.level, {"debug", "info", "warning", "error", "off"}));
  CHORUS_RETURN_IF_ERROR(CheckOneOf("log_format", config.log.format, {"text", "json"}));
  return ValidateEngine(config.engine);
}

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // 127.0.0.0/8 in four numbers; "127.example.org" is a name like any other.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

int32_t ThreadsPerWorker(const ModelConfigFlags& model, int32_t hardware_threads) {
  if (model.threads > 0) return model.threads;
  return std::max(1, hardware_threads / std::max(1, model.workers));
}

}  // namespace chorus
