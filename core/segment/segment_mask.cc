#include "core/segment/segment_mask.h"

namespace chorus {

bool SegmentMask::Allows(int32_t q, int32_t k) const {
  if (k > q) return false;
  if (q >= layout_.original_length()) return true;
  const int32_t segment_of_q = layout_.SegmentOf(q);
  const bool q_in_prefix = q < layout_.prefix_length();
  if (k < layout_.prefix_length()) return q_in_prefix || segment_of_q >= 0;
  return segment_of_q >= 0 && segment_of_q == layout_.SegmentOf(k);
}

}  // namespace chorus
