#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace chorus {

// Those who may call: a set of bearer tokens (RFC 6750). Only their SHA-256 digests are kept.
// Immutable; any thread may ask.
class BearerTokens {
 public:
  static constexpr size_t kMinLength = 16;  // shorter ones can be guessed
  static constexpr size_t kMaxTokens = 1024;

  // `text`: one token a line; blank lines and lines that begin with # are skipped, spaces around a
  // token are not part of it. INVALID_ARGUMENT, naming the line and never the token, if a token is
  // short, long (more than 4096 bytes) or holds a character that RFC 6750 forbids, or there is
  // none.
  static absl::StatusOr<BearerTokens> Parse(std::string_view text);

  // Whether `authorization`, the value of a request's header, is "Bearer TOKEN" with one of them.
  // Takes the same time whichever token is given, right or wrong.
  bool Accepts(std::string_view authorization) const;

  size_t size() const { return digests_.size(); }
  friend bool operator==(const BearerTokens& a, const BearerTokens& b) {
    return a.digests_ == b.digests_;
  }

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest DigestOf(std::string_view token);

  std::vector<Digest> digests_;
};

}  // namespace chorus
