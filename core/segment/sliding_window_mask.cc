#include "core/segment/sliding_window_mask.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/segment/token_ranges.h"

namespace chorus {

SlidingWindowMask::SlidingWindowMask(int32_t window) : window_(window) { CHECK(window >= 1); }

void SlidingWindowMask::AppendKeys(const MaskRow& row, TokenRange window,
                                   std::vector<TokenRange>* keys) const {
  const int32_t begin = std::max(0, row.query - (window_ - 1));
  AppendClipped({begin, row.query + 1}, window, keys->size(), keys);
}

}  // namespace chorus
