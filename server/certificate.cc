#include "server/certificate.h"

#include <ctime>
#include <memory>
#include <utility>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "core/base/status_macros.h"

namespace chorus {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using BioPointer = std::unique_ptr<BIO, Free>;
using X509Pointer = std::unique_ptr<X509, Free>;
using KeyPointer = std::unique_ptr<EVP_PKEY, Free>;

// Without a callback OpenSSL would ask for the passphrase on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

BioPointer Open(const std::string& text) {
  return BioPointer(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The first certificate of `text`. All of them must be readable: a chain cut short would be found
// out by clients only.
absl::StatusOr<X509Pointer> ReadCertificates(const std::string& text, const std::string& what) {
  const BioPointer bio = Open(text);
  X509Pointer first;
  while (true) {
    X509Pointer next(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
    if (next == nullptr) break;
    if (first == nullptr) first = std::move(next);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (first == nullptr) return absl::InvalidArgumentError(what + ": holds no certificate in PEM");
  if (!at_end) return absl::InvalidArgumentError(what + ": one behind the first cannot be read");
  return first;
}

absl::StatusOr<KeyPointer> ReadKey(const std::string& text) {
  KeyPointer key(PEM_read_bio_PrivateKey(Open(text).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key != nullptr) return key;
  return absl::InvalidArgumentError("key: is no private key in PEM without a passphrase");
}

std::string NameOf(const X509* certificate) {
  const BioPointer bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, size);
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm fields = {};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&fields));
}

}  // namespace

absl::StatusOr<Certificate> ParseCertificate(std::string chain, std::string key,
                                             std::string client_ca) {
  CHORUS_ASSIGN_OR_RETURN(const X509Pointer x509, ReadCertificates(chain, "certificate"));
  CHORUS_ASSIGN_OR_RETURN(const KeyPointer private_key, ReadKey(key));
  const bool fits = X509_check_private_key(x509.get(), private_key.get()) == 1;
  ERR_clear_error();
  if (!fits) return absl::InvalidArgumentError("key: is not that of the certificate");
  if (!client_ca.empty()) {
    CHORUS_RETURN_IF_ERROR(ReadCertificates(client_ca, "client CA").status());
  }
  return Certificate{.chain = std::move(chain),
                     .key = std::move(key),
                     .client_ca = std::move(client_ca),
                     .subject = NameOf(x509.get()),
                     .not_before = ToTime(X509_get0_notBefore(x509.get())),
                     .not_after = ToTime(X509_get0_notAfter(x509.get()))};
}

}  // namespace chorus
