#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "server/bearer_tokens.h"
#include "server/certificate.h"
#include "server/config.h"
#include "server/logging.h"
#include "server/memory_file.h"

namespace chorus {

// --token_file's tokens. INVALID_ARGUMENT in one line that names the flag and the file.
absl::StatusOr<BearerTokens> LoadTokens(const SecurityConfig& config);
// What --tls_certificate, --tls_key and --tls_client_ca name. Errors likewise.
absl::StatusOr<Certificate> LoadCertificate(const SecurityConfig& config);

// Whether everything that `config` names can be read. Errors of both.
absl::Status CheckSecrets(const SecurityConfig& config);

// The tokens and certificates that the server goes by now. A thread of its own reads their files
// again every `reload_interval`: what has changed and is good takes the place of the old, what is
// bad is logged and changes nothing. Thread-safe. No secret is ever logged.
class Secrets {
 public:
  // Called with the end of validity of each certificate that comes into use, the first one too.
  using OnCertificate = std::function<void(absl::Time not_after)>;

  // `logger` outlives it. Errors of LoadTokens and LoadCertificate.
  static absl::StatusOr<std::unique_ptr<Secrets>> Create(const SecurityConfig& config,
                                                         const Logger* logger,
                                                         OnCertificate on_certificate = nullptr);
  ~Secrets();
  Secrets(const Secrets&) = delete;
  Secrets& operator=(const Secrets&) = delete;

  bool has_tokens() const { return !config_.token_file.empty(); }
  bool has_certificate() const { return !config_.tls_certificate.empty(); }
  bool has_client_ca() const { return !config_.tls_client_ca.empty(); }

  // Whether `authorization`, a header's value, is one of the tokens'. REQUIRES: has_tokens().
  bool Accepts(std::string_view authorization) const;

  // Files of this process that always hold a certificate, its key and the client CA (a path that is
  // empty without one) that fit together, whatever happens to the operator's. REQUIRES:
  // has_certificate().
  struct Paths {
    std::string chain;
    std::string key;
    std::string client_ca;
  };
  Paths certificate_paths() const;

 private:
  struct CertificateFiles {
    MemoryFile chain;
    MemoryFile key;
    MemoryFile client_ca;
  };

  Secrets(const SecurityConfig& config, const Logger* logger, OnCertificate on_certificate);
  absl::Status LoadAtStart();
  // Logs it and tells on_certificate_.
  void Announce(const Certificate& certificate, std::string_view event) const;
  void WarnOfReadableFiles() const;
  void ThreadMain();
  void ReloadTokens();
  void ReloadCertificate();
  // Logs `status` unless it was the last one of this flag, which `last` keeps.
  void LogRejected(const absl::Status& status, std::string* last) const;

  const SecurityConfig config_;
  const Logger* const logger_;
  const OnCertificate on_certificate_;  // may be null
  std::optional<CertificateFiles> files_;  // const once made, the thread's to fill
  std::string tokens_error_;               // the thread's
  std::string certificate_error_;          // the thread's

  mutable absl::Mutex mutex_;
  std::shared_ptr<const BearerTokens> tokens_ ABSL_GUARDED_BY(mutex_);
  std::optional<Certificate> certificate_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // only if there is anything to read
};

}  // namespace chorus
