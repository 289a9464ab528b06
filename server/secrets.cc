#include "server/secrets.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include <sys/stat.h>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;

absl::Status Bad(const char* flag, const std::string& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", path, ": ", why));
}

absl::StatusOr<std::string> ReadFile(const char* flag, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Bad(flag, path, absl::StrCat("cannot be opened: ", std::strerror(errno)));
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(file.gcount());
  if (file.bad()) return Bad(flag, path, "cannot be read: name a file");
  if (text.size() > kMaxFileBytes) return Bad(flag, path, "has more than 1 MiB");
  return text;
}

bool IsReadableByAll(const std::string& path) {
  struct stat information = {};
  return stat(path.c_str(), &information) == 0 && (information.st_mode & S_IROTH) != 0;
}

}  // namespace

absl::StatusOr<BearerTokens> LoadTokens(const SecurityConfig& config) {
  CHORUS_ASSIGN_OR_RETURN(const std::string text, ReadFile("token_file", config.token_file));
  absl::StatusOr<BearerTokens> tokens = BearerTokens::Parse(text);
  if (!tokens.ok()) return Bad("token_file", config.token_file, tokens.status().message());
  return tokens;
}

absl::StatusOr<Certificate> LoadCertificate(const SecurityConfig& config) {
  CHORUS_ASSIGN_OR_RETURN(std::string chain, ReadFile("tls_certificate", config.tls_certificate));
  CHORUS_ASSIGN_OR_RETURN(std::string key, ReadFile("tls_key", config.tls_key));
  std::string client_ca;
  if (!config.tls_client_ca.empty()) {
    CHORUS_ASSIGN_OR_RETURN(client_ca, ReadFile("tls_client_ca", config.tls_client_ca));
    if (client_ca.empty()) return Bad("tls_client_ca", config.tls_client_ca, "is empty");
  }
  absl::StatusOr<Certificate> certificate =
      ParseCertificate(std::move(chain), std::move(key), std::move(client_ca));
  if (certificate.ok()) return certificate;
  return absl::InvalidArgumentError(absl::StrCat(
      "--tls_certificate=", config.tls_certificate, " --tls_key=", config.tls_key,
      config.tls_client_ca.empty() ? "" : absl::StrCat(" --tls_client_ca=", config.tls_client_ca),
      ": ", certificate.status().message()));
}

absl::Status CheckSecrets(const SecurityConfig& config) {
  if (!config.token_file.empty()) CHORUS_RETURN_IF_ERROR(LoadTokens(config).status());
  if (config.tls_certificate.empty()) return absl::OkStatus();
  return LoadCertificate(config).status();
}

absl::StatusOr<std::unique_ptr<Secrets>> Secrets::Create(const SecurityConfig& config,
                                                         const Logger* logger,
                                                         OnCertificate on_certificate) {
  auto secrets = absl::WrapUnique(new Secrets(config, logger, std::move(on_certificate)));
  CHORUS_RETURN_IF_ERROR(secrets->LoadAtStart());
  secrets->WarnOfReadableFiles();
  if (secrets->has_tokens() || secrets->has_certificate()) {
    secrets->thread_ = std::thread([raw = secrets.get()] { raw->ThreadMain(); });
  }
  return secrets;
}

Secrets::Secrets(const SecurityConfig& config, const Logger* logger, OnCertificate on_certificate)
    : config_(config), logger_(logger), on_certificate_(std::move(on_certificate)) {}

Secrets::~Secrets() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Secrets::LoadAtStart() {
  absl::MutexLock lock(&mutex_);
  if (has_tokens()) {
    CHORUS_ASSIGN_OR_RETURN(BearerTokens tokens, LoadTokens(config_));
    tokens_ = std::make_shared<const BearerTokens>(std::move(tokens));
  }
  if (!has_certificate()) return absl::OkStatus();
  CHORUS_ASSIGN_OR_RETURN(certificate_, LoadCertificate(config_));
  CHORUS_ASSIGN_OR_RETURN(MemoryFile chain, MemoryFile::Create(certificate_->chain));
  CHORUS_ASSIGN_OR_RETURN(MemoryFile key, MemoryFile::Create(certificate_->key));
  CHORUS_ASSIGN_OR_RETURN(MemoryFile client_ca, MemoryFile::Create(certificate_->client_ca));
  files_.emplace(CertificateFiles{std::move(chain), std::move(key), std::move(client_ca)});
  Announce(*certificate_, "certificate_loaded");
  return absl::OkStatus();
}

void Secrets::Announce(const Certificate& certificate, std::string_view event) const {
  const bool is_over = certificate.not_after < absl::Now();
  logger_->Log(is_over ? Logger::Level::kError : Logger::Level::kInfo,
               is_over ? "certificate_expired" : event,
               {{"subject", certificate.subject},
                {"not_after", absl::FormatTime(certificate.not_after, absl::UTCTimeZone())}});
  if (on_certificate_) on_certificate_(certificate.not_after);
}

void Secrets::WarnOfReadableFiles() const {
  for (const auto& [flag, path] :
       {std::pair("token_file", config_.token_file), std::pair("tls_key", config_.tls_key)}) {
    if (path.empty() || !IsReadableByAll(path)) continue;
    logger_->Log(Logger::Level::kWarning, "secret_file_readable_by_all",
                 {{"flag", std::string(flag)}, {"path", path}, {"mend", "chmod o-r " + path}});
  }
}

bool Secrets::Accepts(std::string_view authorization) const {
  std::shared_ptr<const BearerTokens> tokens;
  {
    absl::MutexLock lock(&mutex_);
    tokens = tokens_;
  }
  return tokens->Accepts(authorization);
}

Secrets::Paths Secrets::certificate_paths() const {
  return {files_->chain.path(), files_->key.path(),
          has_client_ca() ? files_->client_ca.path() : ""};
}

void Secrets::ThreadMain() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), config_.reload_interval)) return;
    }
    if (has_tokens()) ReloadTokens();
    if (has_certificate()) ReloadCertificate();
  }
}

void Secrets::ReloadTokens() {
  absl::StatusOr<BearerTokens> tokens = LoadTokens(config_);
  LogRejected(tokens.status(), &tokens_error_);
  if (!tokens.ok()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (*tokens == *tokens_) return;
    tokens_ = std::make_shared<const BearerTokens>(*tokens);
  }
  logger_->Log(Logger::Level::kInfo, "tokens_reloaded",
               {{"tokens", static_cast<int64_t>(tokens->size())}});
}

void Secrets::ReloadCertificate() {
  absl::StatusOr<Certificate> certificate = LoadCertificate(config_);
  LogRejected(certificate.status(), &certificate_error_);
  if (!certificate.ok()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (*certificate == *certificate_) return;
  }
  // The key first: gRPC's watcher looks at both files' times before and after it reads them.
  absl::Status replaced = files_->key.Replace(certificate->key);
  if (replaced.ok()) replaced = files_->chain.Replace(certificate->chain);
  if (replaced.ok()) replaced = files_->client_ca.Replace(certificate->client_ca);
  LogRejected(replaced, &certificate_error_);
  if (!replaced.ok()) return;
  Announce(*certificate, "certificate_reloaded");
  absl::MutexLock lock(&mutex_);
  certificate_ = *std::move(certificate);
}

void Secrets::LogRejected(const absl::Status& status, std::string* last) const {
  const std::string message(status.message());
  if (message != *last && !status.ok()) {
    logger_->Log(Logger::Level::kError, "secret_not_reloaded",
                 {{"error", message}, {"effect", std::string("the old one stays in use")}});
  }
  *last = message;
}

}  // namespace chorus
