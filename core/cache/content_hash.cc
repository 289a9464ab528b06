#include "core/cache/content_hash.h"

namespace chorus {

uint64_t ContentHash(absl::Span<const int32_t> token_ids) {
  constexpr uint64_t kOffsetBasis = 0xcbf29ce484222325ull;
  constexpr uint64_t kPrime = 0x100000001b3ull;
  uint64_t hash = kOffsetBasis;
  for (int32_t token_id : token_ids) {
    const auto bits = static_cast<uint32_t>(token_id);
    for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((bits >> shift) & 0xff)) * kPrime;
  }
  return hash;
}

}  // namespace chorus
