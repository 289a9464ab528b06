#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace chorus {

// A 64-bit hash of a list of token ids, the same in every process and on every machine: segments
// stand in its order (FNV-1a over the little-endian bytes). absl::Hash was looked at: it is salted
// per process, so two replicas would order the same paraphrases differently.
uint64_t ContentHash(absl::Span<const int32_t> token_ids);

}  // namespace chorus
