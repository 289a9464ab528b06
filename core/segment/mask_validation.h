#pragma once

#include "absl/status/status.h"

#include "core/segment/mask_rows.h"
#include "core/segment/offset_mask.h"

namespace chorus {

// Named properties of a compiled mask. Each returns OK, or an INVALID_ARGUMENT that names the
// property and the first (row, key) at fault, in row order: "sliding_window: row 5, key 1 is not
// valid: ...". Rows and keys in the message are indices of the matrix; `offsets` says which tokens
// they are, as for OffsetMask.

// No row sees a key after itself.
absl::Status ValidateCausal(const MaskRows& rows, const MaskOffsets& offsets = {});

// Causal, and no row sees a key `window` or more tokens before itself. REQUIRES: window >= 1.
absl::Status ValidateSlidingWindow(const MaskRows& rows, int32_t window,
                                   const MaskOffsets& offsets = {});

// No row sees a key of another chunk, before or after. REQUIRES: chunk_length >= 1.
absl::Status ValidateChunked(const MaskRows& rows, int32_t chunk_length,
                             const MaskOffsets& offsets = {});

// Rows before original_length see nothing outside their own segment and the prefix: no other
// segment, no separator; a prefix row sees the prefix only, a separator's row nothing.
absl::Status ValidateSegmentIsolated(const MaskRows& rows, const SegmentLayout& layout,
                                     const MaskOffsets& offsets = {});

// Every row sees at least one key. The message names the row alone.
absl::Status ValidateNoEmptyRow(const MaskRows& rows);

}  // namespace chorus
