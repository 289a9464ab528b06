#include "core/segment/mask_validation.h"

#include <random>
#include <string>

#include "gtest/gtest.h"

#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/custom_mask.h"
#include "core/segment/layout_mask.h"
#include "core/segment/sliding_window_mask.h"
#include "tests/segment/mask_support.h"

namespace chorus {
namespace {

MaskRows Square(const Mask& mask, int32_t length) {
  return MaskRows::Compile(mask, {.num_queries = length, .num_keys = length});
}

// `mask` and one pair more.
Mask With(const Mask& mask, int32_t query, int32_t key) {
  return OrMask({mask, CustomMask([=](const MaskRow& row, int32_t k) {
                   return row.query == query && k == key;
                 })});
}

TEST(MaskValidationTest, MasksHaveTheirOwnProperties) {
  EXPECT_TRUE(ValidateCausal(Square(CausalMask(), 9)).ok());
  EXPECT_TRUE(ValidateSlidingWindow(Square(SlidingWindowMask(3), 9), 3).ok());
  EXPECT_TRUE(ValidateChunked(Square(ChunkedMask(4), 9), 4).ok());
  EXPECT_TRUE(ValidateNoEmptyRow(Square(CausalMask(), 9)).ok());
}

TEST(MaskValidationTest, TheFirstRowAndKeyAtFaultAreNamed) {
  EXPECT_EQ(ValidateCausal(Square(With(CausalMask(), 4, 7), 9)).message(),
            "causal: row 4, key 7 is not valid: a row may see no key after itself");
  EXPECT_EQ(ValidateSlidingWindow(Square(SlidingWindowMask(4), 9), 3).message(),
            "sliding_window: row 3, key 0 is not valid: a row may see itself and the 2 keys before "
            "it");
  EXPECT_EQ(ValidateSlidingWindow(Square(With(SlidingWindowMask(3), 2, 5), 9), 3).message(),
            "sliding_window: row 2, key 5 is not valid: a row may see itself and the 2 keys before "
            "it");
  EXPECT_EQ(ValidateChunked(Square(With(ChunkedMask(4), 5, 3), 9), 4).message(),
            "chunked: row 5, key 3 is not valid: a row may see its own chunk of 4 tokens only");
  const SegmentLayout layout =
      SegmentLayout::FromRanges(0, {{0, 3}, {4, 7}}, 7, 8, PositionMode::kSequential).value();
  EXPECT_EQ(ValidateNoEmptyRow(Square(LayoutMask(layout), 8)).message(),
            "no_empty_row: row 3 is not valid: every row must see a key");
}

TEST(MaskValidationTest, SegmentsAreIsolatedUntilAPairJoinsThem) {
  int joined = 0;
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const int32_t length = layout.length() + 2;
    ASSERT_TRUE(ValidateSegmentIsolated(Square(LayoutMask(layout), length), layout).ok());
    const int32_t q = Below(random, length), k = Below(random, length);
    const bool is_own =
        (layout.SegmentOf(q) >= 0 && layout.SegmentOf(q) == layout.SegmentOf(k)) ||
        (k < layout.prefix_length() && (q < layout.prefix_length() || layout.SegmentOf(q) >= 0));
    const absl::Status status =
        ValidateSegmentIsolated(Square(With(LayoutMask(layout), q, k), length), layout);
    if (q >= layout.original_length() || is_own) {
      ASSERT_TRUE(status.ok()) << status;
      continue;
    }
    ++joined;
    ASSERT_EQ(status.message(),
              "segment_isolated: row " + std::to_string(q) + ", key " + std::to_string(k) +
                  " is not valid: a row before original_length may see its own segment and the "
                  "prefix only");
  }
  EXPECT_GT(joined, 300);
}

TEST(MaskValidationTest, OffsetsSayWhichTokensRowsAndKeysAre) {
  const MaskOffsets offsets = {.query = 7, .key = 3};
  const MaskRows::Slice slice = {.num_queries = 3, .num_keys = 7};
  const MaskRows causal = MaskRows::Compile(OffsetMask(CausalMask(), offsets), slice);
  EXPECT_TRUE(ValidateCausal(causal, offsets).ok());
  EXPECT_EQ(ValidateCausal(causal).message(),
            "causal: row 0, key 1 is not valid: a row may see no key after itself");
  EXPECT_TRUE(ValidateSlidingWindow(
                  MaskRows::Compile(OffsetMask(SlidingWindowMask(2), offsets), slice), 2, offsets)
                  .ok());
  EXPECT_TRUE(
      ValidateChunked(MaskRows::Compile(OffsetMask(ChunkedMask(4), offsets), slice), 4, offsets)
          .ok());
}

}  // namespace
}  // namespace chorus
