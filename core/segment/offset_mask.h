#pragma once

#include "core/segment/mask.h"

namespace chorus {

// Where a matrix stands in the whole sequence: its query 0 is token `query`, its key 0 token `key`.
// With n tokens in the cache, the rows of a step begin at query = n and key = 0; a cache that has
// forgotten the oldest tokens begins at a later key.
struct MaskOffsets {
  int32_t query = 0;
  int32_t key = 0;
};

// `base`, seen through offsets: Allows(q, k) is base.Allows(q + offsets.query, k + offsets.key).
class OffsetMask {
 public:
  // REQUIRES: both offsets >= 0; indices plus offsets stay below 2^31.
  OffsetMask(Mask base, MaskOffsets offsets);

  bool Allows(const MaskRow& row, int32_t key) const;
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  MaskRow BaseRow(const MaskRow& row) const;

  Mask base_;
  MaskOffsets offsets_;
};

}  // namespace chorus
