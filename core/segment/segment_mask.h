#pragma once

#include <cstdint>

#include "core/segment/segment_layout.h"

namespace chorus {

// May query row q attend to key k? The one definition of the segment attention mask; every faster
// form (RowIntervals, kernels) is tested against it.
//
//   k <= q  and ( q >= original_length                                 suffix and generated rows
//              or same_segment(q, k)                                   a segment sees itself
//              or (k < prefix_length and q in the prefix or in a segment) )   all see the prefix
//
// A row in a gap (isolated separator) attends to nothing; its attention output is zero and its
// log-sum-exp minus infinity, while generated rows do see its key and value.
class SegmentMask {
 public:
  // `layout` must outlive the mask.
  explicit SegmentMask(const SegmentLayout* layout) : layout_(*layout) {}

  // q, k >= 0; indices at or past the layout's length are generated tokens.
  bool Allows(int32_t q, int32_t k) const;

 private:
  const SegmentLayout& layout_;
};

}  // namespace chorus
