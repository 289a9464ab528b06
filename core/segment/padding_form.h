#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/segment/mask_rows.h"

namespace chorus {

// A mask as what flash attention's callers pass: which keys count, and the kernel's causal flag.
struct PaddingForm {
  std::vector<uint8_t> valid;  // [batch, num_keys], row-major: 0 for keys that no query sees
  bool is_causal = true;       // otherwise every query sees every valid key
};

// InvalidArgument, naming the first batch entry, row and key at fault, if the mask is neither
// "valid keys" nor "valid keys, causal" (row q sees none after q + num_keys - num_queries).
absl::StatusOr<PaddingForm> ToPadding(absl::Span<const MaskRows> batch);

}  // namespace chorus
