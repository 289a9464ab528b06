#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace chorus {

// What a TLS server shows and trusts: PEM texts that have been looked at and fit together.
struct Certificate {
  std::string chain;      // the server's own certificate first
  std::string key;        // of that certificate
  std::string client_ca;  // who signs clients' certificates; empty: clients show none

  std::string subject;    // of the server's certificate, for people
  absl::Time not_before;  // valid from
  absl::Time not_after;   // valid until

  friend bool operator==(const Certificate& a, const Certificate& b) {
    return a.chain == b.chain && a.key == b.key && a.client_ca == b.client_ca;
  }
};

// Fills in the rest of a Certificate with these PEM texts. INVALID_ARGUMENT, in one line that
// begins with "certificate", "key" or "client CA" and never quotes one, if a text cannot be read or
// the key is not the certificate's. A certificate whose time is over is one all the same.
absl::StatusOr<Certificate> ParseCertificate(std::string chain, std::string key,
                                             std::string client_ca);

}  // namespace chorus
