#include "core/segment/custom_mask.h"

#include "core/segment/token_ranges.h"

namespace chorus {

void CustomMask::AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const {
  const size_t first = keys->size();
  for (int32_t key = window.begin; key < window.end; ++key) {
    if (predicate_(row, key)) AppendClipped({key, key + 1}, window, first, keys);
  }
}

}  // namespace chorus
