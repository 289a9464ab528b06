#pragma once

#include "absl/status/statusor.h"

#include "core/segment/mask_rows.h"
#include "core/segment/row_intervals.h"

namespace chorus {

// A compiled mask as RowIntervals: runs of rows that share their key intervals but for the causal
// clip, as long as they can be; rows that see nothing are runs of their own. The same pairs are
// allowed as by `rows`. Where the mask is a segment layout's, RowIntervals::FromLayout may cut the
// same rows elsewhere (it never joins a prefix to a segment). InvalidArgument, naming row and key,
// if queries and keys are not the same tokens, or a row sees a key after itself.
absl::StatusOr<RowIntervals> ToRowIntervals(const MaskRows& rows);

}  // namespace chorus
