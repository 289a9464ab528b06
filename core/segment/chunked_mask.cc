#include "core/segment/chunked_mask.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/segment/token_ranges.h"

namespace chorus {

ChunkedMask::ChunkedMask(int32_t chunk_length) : chunk_length_(chunk_length) {
  CHECK(chunk_length >= 1);
}

void ChunkedMask::AppendKeys(const MaskRow& row, TokenRange window,
                             std::vector<TokenRange>* keys) const {
  const int32_t begin = row.query - row.query % chunk_length_;
  // The window's end bounds the chunk's, whose sum might not fit.
  const int32_t end = begin + std::min(chunk_length_, std::max(0, window.end - begin));
  AppendClipped({begin, end}, window, keys->size(), keys);
}

}  // namespace chorus
