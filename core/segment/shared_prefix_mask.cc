#include "core/segment/shared_prefix_mask.h"

#include "core/base/check.h"
#include "core/segment/token_ranges.h"

namespace chorus {

SharedPrefixMask::SharedPrefixMask(int32_t prefix_length) : prefix_length_(prefix_length) {
  CHECK(prefix_length >= 0);
}

void SharedPrefixMask::AppendKeys(const MaskRow& row, TokenRange window,
                                  std::vector<TokenRange>* keys) const {
  AppendClipped({0, prefix_length_}, window, keys->size(), keys);
}

}  // namespace chorus
