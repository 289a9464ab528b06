#pragma once

#include <utility>

#include "core/segment/mask.h"
#include "core/segment/segment_mask.h"

namespace chorus {

// The segment mask as a rule of the algebra. SegmentMask defines it; this one owns its layout.
class LayoutMask {
 public:
  explicit LayoutMask(SegmentLayout layout) : layout_(std::move(layout)) {}

  bool Allows(const MaskRow& row, int32_t key) const {
    return SegmentMask(&layout_).Allows(row.query, key);
  }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

  const SegmentLayout& layout() const { return layout_; }

 private:
  SegmentLayout layout_;
};

}  // namespace chorus
