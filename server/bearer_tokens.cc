#include "server/bearer_tokens.h"

#include <algorithm>
#include <utility>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace chorus {
namespace {

constexpr size_t kMaxLength = 4096;
constexpr std::string_view kScheme = "Bearer ";

// b64token of RFC 6750, section 2.1.
bool IsTokenCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("-._~+/=").find(c) != std::string_view::npos;
}

absl::Status CheckToken(absl::string_view token, int line_number) {
  if (token.size() < BearerTokens::kMinLength || token.size() > kMaxLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line_number, ": a token must have ", BearerTokens::kMinLength, "..",
                     kMaxLength, " characters, this one has ", token.size(),
                     "; 'openssl rand -hex 32' makes a good one"));
  }
  if (std::all_of(token.begin(), token.end(), IsTokenCharacter)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "line ", line_number,
      ": a token may hold letters, digits and -._~+/= only; 'openssl rand -hex 32' makes a good "
      "one"));
}

}  // namespace

absl::StatusOr<BearerTokens> BearerTokens::Parse(std::string_view text) {
  BearerTokens tokens;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    if (absl::Status status = CheckToken(line, line_number); !status.ok()) return status;
    if (tokens.size() == kMaxTokens) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTokens, " tokens"));
    }
    tokens.digests_.push_back(DigestOf({line.data(), line.size()}));
  }
  if (tokens.size() == 0) {
    return absl::InvalidArgumentError(
        "there is no token in it: write one a line, 'openssl rand -hex 32' makes a good one");
  }
  return tokens;
}

bool BearerTokens::Accepts(std::string_view authorization) const {
  // The scheme's name is no secret, and has no case (RFC 9110, section 11.1).
  const absl::string_view value(authorization.data(), authorization.size());
  const bool has_scheme = absl::StartsWithIgnoreCase(
      value, absl::string_view(kScheme.data(), kScheme.size()));
  const Digest given = DigestOf(has_scheme ? authorization.substr(kScheme.size()) : authorization);
  int num_equal = 0;
  for (const Digest& digest : digests_) {
    num_equal += CRYPTO_memcmp(digest.data(), given.data(), digest.size()) == 0 ? 1 : 0;
  }
  return has_scheme && num_equal > 0;
}

BearerTokens::Digest BearerTokens::DigestOf(std::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

}  // namespace chorus
