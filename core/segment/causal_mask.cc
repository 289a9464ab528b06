#include "core/segment/causal_mask.h"

#include "core/segment/token_ranges.h"

namespace chorus {

void CausalMask::AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const {
  AppendClipped({0, row.query + 1}, window, keys->size(), keys);
}

}  // namespace chorus
