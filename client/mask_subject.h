#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/mask_options.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// The layout that a picture is of.
struct MaskSubject {
  std::string name;  // a scenario's, "ranges" or "prompt"
  SegmentLayout layout;
  int32_t length = 0;                    // generated tokens included; 1 to kMaxMaskTokens
  bool is_full = false;                  // how it is shown unless flags say otherwise
  int32_t max_positions = 30;            // the same
  bool samples_prefix = false;           // the prefix's ends are among the sampled tokens
  std::vector<int32_t> token_ids;        // [layout.length()] of a real prompt, else empty
  std::vector<std::string> token_texts;  // the same
};

// INVALID_ARGUMENT names flag, value and limit: segments that are empty, overlap, are out of order
// or end after original_length; lengths out of order; too many tokens; a prompt without tokens; a
// model's files that cannot be read. REQUIRES: FinishMaskOptions succeeded.
absl::StatusOr<MaskSubject> MakeMaskSubject(const MaskOptions& options);

}  // namespace chorus
