#include "core/segment/layout_mask.h"

#include "core/segment/token_ranges.h"

namespace chorus {

void LayoutMask::AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const {
  const int32_t q = row.query;
  const size_t first = keys->size();
  if (q >= layout_.original_length() || q < layout_.prefix_length()) {
    AppendClipped({0, q + 1}, window, first, keys);
    return;
  }
  const int32_t segment = layout_.SegmentOf(q);
  if (segment < 0) return;
  AppendClipped({0, layout_.prefix_length()}, window, first, keys);
  AppendClipped({layout_.segments()[segment].begin, q + 1}, window, first, keys);
}

}  // namespace chorus
