#include "core/segment/offset_mask.h"

#include "core/base/check.h"

namespace chorus {

OffsetMask::OffsetMask(Mask base, MaskOffsets offsets) : base_(std::move(base)), offsets_(offsets) {
  CHECK(offsets.query >= 0 && offsets.key >= 0);
}

MaskRow OffsetMask::BaseRow(const MaskRow& row) const {
  return {row.batch, row.head, row.query + offsets_.query};
}

bool OffsetMask::Allows(const MaskRow& row, int32_t key) const {
  return base_.Allows(BaseRow(row), key + offsets_.key);
}

void OffsetMask::AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const {
  const size_t first = keys->size();
  base_.AppendKeys(BaseRow(row), {window.begin + offsets_.key, window.end + offsets_.key}, keys);
  for (size_t i = first; i < keys->size(); ++i) {
    (*keys)[i].begin -= offsets_.key;
    (*keys)[i].end -= offsets_.key;
  }
}

}  // namespace chorus
