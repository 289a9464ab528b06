#include "tests/segment/mask_support.h"

#include <utility>

#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/custom_mask.h"
#include "core/segment/layout_mask.h"
#include "core/segment/offset_mask.h"
#include "core/segment/packed_mask.h"
#include "core/segment/padding_mask.h"
#include "core/segment/shared_prefix_mask.h"
#include "core/segment/sliding_window_mask.h"

namespace chorus {
namespace {

Mask RandomRule(std::mt19937& random, int32_t batch) {
  const int32_t length = 1 + Below(random, 20);
  switch (Below(random, 8)) {
    case 0:
      return CausalMask();
    case 1:
      return SlidingWindowMask(1 + Below(random, 8));
    case 2:
      return ChunkedMask(1 + Below(random, 8));
    case 3: {
      std::vector<uint8_t> valid;
      for (int32_t i = 0; i < batch * length; ++i) valid.push_back(Below(random, 4) > 0);
      return PaddingMask::Create(batch, length, valid).value();
    }
    case 4: {
      std::vector<int32_t> ids;
      for (int32_t i = 0; i < batch * length; ++i) ids.push_back(Below(random, 3) - 1);
      return PackedMask::FromSequenceIds(batch, length, ids).value();
    }
    case 5:
      return LayoutMask(RandomLayout(random));
    case 6:
      return SharedPrefixMask(Below(random, 6));
    default: {
      const uint32_t salt = random();
      return CustomMask([salt](const MaskRow& row, int32_t key) {
        return (salt ^ (row.batch * 7u + row.head * 5u + row.query * 3u + key)) % 3 == 0;
      });
    }
  }
}

}  // namespace

SegmentLayout RandomLayout(std::mt19937& random) {
  const int32_t prefix_length = Below(random, 2) * Below(random, 5);
  int32_t index = prefix_length;
  std::vector<TokenRange> segments;
  for (int32_t i = 0, n = Below(random, 5); i < n; ++i) {
    index += Below(random, 2) * Below(random, 3);
    const int32_t begin = index;
    index += 1 + Below(random, 2) * Below(random, 6);
    segments.push_back({begin, index});
  }
  const int32_t original_length = index + Below(random, 2) * Below(random, 3);
  return SegmentLayout::FromRanges(prefix_length, std::move(segments), original_length,
                                   original_length + Below(random, 4), PositionMode::kOverlapping)
      .value();
}

Mask RandomMask(std::mt19937& random, int32_t batch, int32_t depth) {
  if (depth == 0 || Below(random, 4) == 0) return RandomRule(random, batch);
  std::vector<Mask> operands;
  for (int32_t i = 0, n = Below(random, 4); i < n; ++i) {
    operands.push_back(RandomMask(random, batch, depth - 1));
  }
  switch (Below(random, 3)) {
    case 0:
      return AndMask(std::move(operands));
    case 1:
      return OrMask(std::move(operands));
    default:
      return OffsetMask(RandomMask(random, batch, depth - 1),
                        {.query = Below(random, 6), .key = Below(random, 6)});
  }
}

}  // namespace chorus
