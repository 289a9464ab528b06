#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/segment/mask_rows.h"

namespace chorus {

// A mask as what variable-length causal attention kernels take: sequences laid end to end, each
// causal in itself and seeing nothing of the others.
struct VarlenForm {
  std::vector<int32_t> cumulative_lengths;  // [sequences + 1]: sequence i is [i] up to [i + 1]
  std::vector<int64_t> token_indices;       // [tokens]: index of each into [batch, length]
  int32_t max_length = 0;                   // of the longest sequence
};

// Tokens that no query sees (padding, separators of a prompt before anything is generated) are left
// out, whatever they see themselves. InvalidArgument, naming the batch entry, the row and its key,
// if queries and keys are not the same tokens, or if a row sees anything but a run of keys that
// ends with itself, or another run than the row before it sees.
absl::StatusOr<VarlenForm> ToVarlen(absl::Span<const MaskRows> batch);

}  // namespace chorus
