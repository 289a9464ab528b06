#include "server/certificate.h"

#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "absl/time/clock.h"

#include "core/base/check.h"
#include "server/memory_file.h"

namespace chorus {
namespace {

using testing::HasSubstr;

std::string TakeText(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  const std::string text(data, size);
  BIO_free(bio);
  return text;
}

// A new key on P-256.
std::shared_ptr<EVP_PKEY> NewKey() {
  return {EVP_EC_gen("P-256"), EVP_PKEY_free};
}

std::string KeyText(EVP_PKEY* key, const char* passphrase = nullptr) {
  BIO* const bio = BIO_new(BIO_s_mem());
  CHECK(PEM_write_bio_PKCS8PrivateKey(bio, key, passphrase ? EVP_aes_256_cbc() : nullptr, nullptr,
                                      0, nullptr, const_cast<char*>(passphrase)) == 1);
  return TakeText(bio);
}

// A certificate of CN=localhost, signed by its own key, valid from an hour ago for `seconds`.
std::string CertificateText(EVP_PKEY* key, long seconds) {
  X509* const x509 = X509_new();
  X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x509), -3600 + seconds);
  X509_set_pubkey(x509, key);
  X509_NAME* const name = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(x509, name);
  CHECK(X509_sign(x509, key, EVP_sha256()) > 0);
  BIO* const bio = BIO_new(BIO_s_mem());
  CHECK(PEM_write_bio_X509(bio, x509) == 1);
  X509_free(x509);
  return TakeText(bio);
}

TEST(CertificateTest, SaysWhoseItIsAndHowLongItCounts) {
  const auto key = NewKey();
  const std::string chain = CertificateText(key.get(), 7200) + CertificateText(NewKey().get(), 1);
  const auto certificate = ParseCertificate("text before\n" + chain, KeyText(key.get()), chain);
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_EQ(certificate->subject, "CN=localhost");
  EXPECT_LT(certificate->not_before, absl::Now());
  // Certificates count in seconds.
  EXPECT_NEAR(absl::ToDoubleSeconds(certificate->not_after - absl::Now()), 3600, 60);
}

TEST(CertificateTest, WhoseTimeIsOverIsOneAllTheSame) {
  const auto key = NewKey();
  const auto certificate = ParseCertificate(CertificateText(key.get(), 60), KeyText(key.get()), "");
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_LT(certificate->not_after, absl::Now());
}

TEST(CertificateTest, PartsThatDoNotFitAreNamed) {
  const auto key = NewKey();
  const std::string good = CertificateText(key.get(), 7200);
  const std::string good_key = KeyText(key.get());
  const std::string half = good.substr(0, good.size() / 2);
  const struct {
    std::string chain;
    std::string key;
    std::string client_ca;
    std::string message;
  } kCases[] = {{"", good_key, "", "certificate: holds no certificate"},
                {good_key, good_key, "", "certificate: holds no certificate"},
                {half, good_key, "", "certificate: holds no certificate"},
                {good + half, good_key, "", "certificate: one behind the first"},
                {good, "", "", "key: is no private key"},
                {good, good, "", "key: is no private key"},
                {good, KeyText(key.get(), "passphrase"), "", "key: is no private key"},
                {good, KeyText(NewKey().get()), "", "key: is not that of the certificate"},
                {good, good_key, "nonsense", "client CA: holds no certificate"},
                {good, good_key, good + half, "client CA: one behind the first"}};
  for (const auto& entry : kCases) {
    const auto certificate = ParseCertificate(entry.chain, entry.key, entry.client_ca);
    ASSERT_EQ(certificate.status().code(), absl::StatusCode::kInvalidArgument) << entry.message;
    EXPECT_THAT(std::string(certificate.status().message()), HasSubstr(entry.message));
  }
}

TEST(MemoryFileTest, ChangesUnderThosePathsThatStay) {
  const auto read = [](const std::string& path) {
    std::ifstream file(path);
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  };
  auto file = MemoryFile::Create("the old, longer text");
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string path = file->path();
  EXPECT_EQ(read(path), "the old, longer text");
  std::ifstream opened_before(path);
  ASSERT_TRUE(file->Replace("new").ok());
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(read(path), "new");
  EXPECT_EQ(std::string((std::istreambuf_iterator<char>(opened_before)),
                        std::istreambuf_iterator<char>()),
            "the old, longer text");
}

}  // namespace
}  // namespace chorus
