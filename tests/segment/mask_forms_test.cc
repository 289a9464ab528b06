#include <cmath>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/segment/block_mask.h"
#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/custom_mask.h"
#include "core/segment/dense_mask.h"
#include "core/segment/layout_mask.h"
#include "core/segment/mask_run_form.h"
#include "core/segment/mask_statistics.h"
#include "core/segment/offset_mask.h"
#include "core/segment/packed_mask.h"
#include "core/segment/padding_form.h"
#include "core/segment/padding_mask.h"
#include "core/segment/sliding_window_mask.h"
#include "core/segment/varlen_form.h"
#include "tests/segment/mask_support.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MaskRows Square(const Mask& mask, int32_t length) {
  return MaskRows::Compile(mask, {.num_queries = length, .num_keys = length});
}

TEST(DenseMaskTest, AllFormsSayTheSameForEveryBatchEntry) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const Mask mask = RandomMask(random, 3, 2);
    const MaskShape shape = {3, 1 + Below(random, 9), 1 + Below(random, 9)};
    const std::vector<MaskRows> batch = CompileBatch(mask, shape);
    const std::vector<uint8_t> boolean = ToBoolean(batch);
    const std::vector<float> float32 = ToAdditiveFloat32(batch);
    const std::vector<uint16_t> float16 = ToAdditiveFloat16(batch);
    const std::vector<uint16_t> bfloat16 = ToAdditiveBFloat16(batch);
    const size_t size = size_t{3} * shape.num_queries * shape.num_keys;
    ASSERT_EQ(boolean.size(), size);
    ASSERT_EQ(float32.size(), size);
    size_t i = 0;
    for (int32_t b = 0; b < 3; ++b) {
      for (int32_t q = 0; q < shape.num_queries; ++q) {
        for (int32_t k = 0; k < shape.num_keys; ++k, ++i) {
          const bool allows = mask.Allows({.batch = b, .query = q}, k);
          ASSERT_EQ(boolean[i], allows);
          ASSERT_EQ(float32[i], allows ? 0.0f : -INFINITY);
          ASSERT_EQ(float16[i], allows ? 0 : 0xFC00);
          ASSERT_EQ(bfloat16[i], allows ? 0 : 0xFF80);
        }
      }
    }
  }
}

TEST(RowIntervalsFormTest, CausalMasksBecomeRunsThatAllowTheSamePairs) {
  for (uint32_t seed = 1; seed <= 1500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int32_t length = 1 + Below(random, 20);
    const MaskRows rows = Square(AndMask({CausalMask(), RandomMask(random, 1, 2)}), length);
    const RowIntervals intervals = ToRowIntervals(rows).value();
    ASSERT_EQ(intervals.CountAllowed(), rows.CountAllowed());
    int32_t next_row = 0;
    for (const RowIntervals::Run& run : intervals.runs()) {
      ASSERT_EQ(run.rows.begin, next_row);
      next_row = run.rows.end;
      for (int32_t q = run.rows.begin; q < run.rows.end; ++q) {
        for (int32_t k = 0; k < length; ++k) {
          bool allows = false;
          for (const KeyInterval& keys : run.keys) allows |= keys.begin <= k && k < keys.end;
          ASSERT_EQ(allows && k <= q, rows.Allows(q, k)) << "q " << q << " k " << k;
        }
      }
    }
    ASSERT_EQ(next_row, length);
  }
}

TEST(RowIntervalsFormTest, ALayoutHasOneRunASegment) {
  const SegmentLayout layout =
      SegmentLayout::FromRanges(0, {{0, 4}, {6, 9}}, 9, 12, PositionMode::kSequential).value();
  const RowIntervals made = ToRowIntervals(Square(LayoutMask(layout), 12)).value();
  const RowIntervals direct = RowIntervals::FromLayout(layout, 12, /*split_segment_columns=*/false);
  ASSERT_EQ(made.runs().size(), direct.runs().size());
  for (size_t i = 0; i < made.runs().size(); ++i) {
    EXPECT_EQ(made.runs()[i].rows, direct.runs()[i].rows);
    EXPECT_EQ(made.runs()[i].keys, direct.runs()[i].keys);
  }
}

TEST(RowIntervalsFormTest, ARowThatSeesTheFutureIsRefused) {
  EXPECT_THAT(std::string(ToRowIntervals(Square(ChunkedMask(3), 6)).status().message()),
              HasSubstr("row 0, key 1 is not valid: a row may see no key after itself"));
}

TEST(VarlenFormTest, SegmentsBeforeAnythingIsGeneratedAreSequences) {
  const SegmentLayout layout =
      SegmentLayout::FromRanges(0, {{0, 4}, {6, 9}, {9, 10}}, 10, 10, PositionMode::kSequential)
          .value();
  const VarlenForm form = ToVarlen({Square(LayoutMask(layout), 10)}).value();
  EXPECT_THAT(form.cumulative_lengths, ElementsAre(0, 4, 7, 8));
  EXPECT_THAT(form.token_indices, ElementsAre(0, 1, 2, 3, 6, 7, 8, 9));
  EXPECT_EQ(form.max_length, 4);
}

TEST(VarlenFormTest, PaddingOnEitherSideIsLeftOut) {
  const std::vector<uint8_t> valid = {0, 0, 1, 1, 1,  //
                                      1, 1, 1, 1, 0,  //
                                      1, 0, 1, 1, 1};
  const Mask mask = AndMask({CausalMask(), PaddingMask::Create(3, 5, valid).value()});
  const VarlenForm form = ToVarlen(CompileBatch(mask, {3, 5, 5})).value();
  EXPECT_THAT(form.cumulative_lengths, ElementsAre(0, 3, 7, 11));
  EXPECT_THAT(form.token_indices, ElementsAre(2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14));
}

// A varlen form, read as kernels read it, allows the pairs of the mask it was made from.
TEST(VarlenFormTest, PackedSequencesWithPaddingComeBackUnchanged) {
  for (uint32_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int32_t length = 1 + Below(random, 20);
    std::vector<int32_t> ids;
    std::vector<uint8_t> valid;
    for (int32_t i = 0, id = 0; i < 2 * length; ++i) {
      ids.push_back(id += Below(random, 4) == 0);
      valid.push_back(Below(random, 5) > 0);
    }
    const Mask mask = AndMask({CausalMask(), PackedMask::FromSequenceIds(2, length, ids).value(),
                               PaddingMask::Create(2, length, valid).value()});
    const VarlenForm form = ToVarlen(CompileBatch(mask, {2, length, length})).value();
    std::vector<int32_t> sequence_of(2 * length, -1);
    for (size_t s = 0; s + 1 < form.cumulative_lengths.size(); ++s) {
      for (int32_t i = form.cumulative_lengths[s]; i < form.cumulative_lengths[s + 1]; ++i) {
        sequence_of[form.token_indices[i]] = static_cast<int32_t>(s);
      }
    }
    for (int32_t b = 0; b < 2; ++b) {
      for (int32_t q = 0; q < length; ++q) {
        ASSERT_EQ(sequence_of[b * length + q] >= 0, valid[b * length + q] != 0);
        if (sequence_of[b * length + q] < 0) continue;  // a query that is left out
        for (int32_t k = 0; k <= q; ++k) {
          ASSERT_EQ(sequence_of[b * length + q] == sequence_of[b * length + k],
                    mask.Allows({.batch = b, .query = q}, k));
        }
      }
    }
  }
}

TEST(VarlenFormTest, WhatIsNotCausalInEachSequenceIsRefused) {
  const auto message = [](const Mask& mask, int32_t length) {
    return std::string(ToVarlen({Square(mask, length)}).status().message());
  };
  EXPECT_THAT(message(ChunkedMask(3), 6),
              HasSubstr("batch entry 0, row 0 is not valid: sees key 2 last; it must be itself"));
  EXPECT_THAT(message(SlidingWindowMask(2), 6),
              HasSubstr("row 2 is not valid: begins at key 1, unlike the row before it"));
  const SegmentLayout fused =
      SegmentLayout::FromRanges(0, {{0, 2}, {3, 5}}, 5, 6, PositionMode::kSequential).value();
  EXPECT_THAT(message(LayoutMask(fused), 6),
              HasSubstr("row 2 is not valid: other rows see this one, which sees no key"));
  const SegmentLayout prefixed =
      SegmentLayout::FromRanges(1, {{1, 3}, {3, 5}}, 5, 5, PositionMode::kSequential).value();
  EXPECT_THAT(message(LayoutMask(prefixed), 5),
              HasSubstr("row 3 is not valid: does not see key 2"));
  EXPECT_FALSE(ToVarlen({MaskRows::Compile(CausalMask(), {.num_queries = 2, .num_keys = 3})}).ok());
}

TEST(PaddingFormTest, PaddingComesBackWithItsCausality) {
  for (uint32_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int32_t length = 2 + Below(random, 20);
    std::vector<uint8_t> valid;
    for (int32_t i = 0; i < 2 * length; ++i) valid.push_back(Below(random, 4) > 0);
    valid[0] = valid[length] = 1;  // so that a causal mask and its bidirectional one differ
    valid[length - 1] = valid[2 * length - 1] = 1;
    const Mask padding = PaddingMask::Create(2, length, valid).value();
    const MaskShape shape = {2, length, length};
    const PaddingForm both = ToPadding(CompileBatch(padding, shape)).value();
    EXPECT_EQ(both.valid, valid);
    EXPECT_FALSE(both.is_causal);
    const PaddingForm causal =
        ToPadding(CompileBatch(AndMask({CausalMask(), padding}), shape)).value();
    EXPECT_EQ(causal.valid, valid);
    EXPECT_TRUE(causal.is_causal);
  }
}

TEST(PaddingFormTest, WhatIsNotPaddingIsRefusedByRowAndKey) {
  const auto message = [](const Mask& mask) {
    return std::string(ToPadding({Square(mask, 6)}).status().message());
  };
  EXPECT_THAT(message(SlidingWindowMask(2)),
              HasSubstr("batch entry 0, row 2, key 0 is not valid: a row that does not see"));
  EXPECT_THAT(message(ChunkedMask(3)), HasSubstr("row 0, key 1 is not valid: a row that sees"));
}

TEST(BlockMaskTest, TilesOfAnySizeAreWhatTheirPairsAre) {
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int32_t num_queries = Below(random, 24), num_keys = Below(random, 24);
    const Mask mask = RandomMask(random, 1, 2);
    const MaskRows rows =
        MaskRows::Compile(mask, {.num_queries = num_queries, .num_keys = num_keys});
    const BlockMask::TileSize size = {1 + Below(random, 9), 1 + Below(random, 9)};
    const BlockMask blocks = BlockMask::FromRows(rows, size);
    ASSERT_EQ(blocks.num_query_tiles(), (num_queries + size.queries - 1) / size.queries);
    ASSERT_EQ(blocks.num_key_tiles(), (num_keys + size.keys - 1) / size.keys);
    for (int32_t i = 0; i < blocks.num_query_tiles(); ++i) {
      for (int32_t j = 0; j < blocks.num_key_tiles(); ++j) {
        int pairs = 0, allowed = 0;
        for (int32_t q = i * size.queries; q < std::min((i + 1) * size.queries, num_queries); ++q) {
          for (int32_t k = j * size.keys; k < std::min((j + 1) * size.keys, num_keys); ++k) {
            ++pairs;
            allowed += mask.Allows({.query = q}, k);
          }
        }
        const BlockMask::Tile expected = allowed == 0       ? BlockMask::Tile::kEmpty
                                         : allowed == pairs ? BlockMask::Tile::kFull
                                                            : BlockMask::Tile::kPartial;
        ASSERT_EQ(blocks.At(i, j), expected) << "tile " << i << ", " << j;
      }
    }
  }
}

TEST(MaskStatisticsTest, CountPairsRowsAndTiles) {
  const MaskStatistics causal = Summarise(Square(CausalMask(), 256), {128, 128});
  EXPECT_EQ(causal.allowed, 256 * 257 / 2);
  EXPECT_EQ(causal.total, 65536);
  EXPECT_EQ(causal.tiles, 4);
  EXPECT_EQ(causal.tiles_skipped, 1);
  EXPECT_EQ(causal.tiles_full, 1);
  const SegmentLayout layout =
      SegmentLayout::FromRanges(0, {{0, 2}, {4, 6}}, 7, 8, PositionMode::kSequential).value();
  const MaskStatistics segments = Summarise(Square(LayoutMask(layout), 8), {2, 2});
  EXPECT_EQ(segments.allowed, 3 + 3 + 8);
  EXPECT_DOUBLE_EQ(segments.ratio(), 14.0 / 64.0);
  EXPECT_THAT(segments.fully_masked_rows, ElementsAre(TokenRange{2, 4}, TokenRange{6, 7}));
  EXPECT_EQ(Summarise(Square(CausalMask(), 0), {}).ratio(), 0.0);
}

TEST(PlainlyCausalTest, IsRecognisedFromTheRows) {
  const auto is_plain = [](const Mask& mask, int32_t num_queries, int32_t num_keys) {
    return IsPlainlyCausal(
        MaskRows::Compile(mask, {.num_queries = num_queries, .num_keys = num_keys}));
  };
  EXPECT_TRUE(is_plain(CausalMask(), 6, 6));
  EXPECT_TRUE(is_plain(SlidingWindowMask(6), 6, 6));
  EXPECT_FALSE(is_plain(SlidingWindowMask(5), 6, 6));
  EXPECT_TRUE(is_plain(OffsetMask(CausalMask(), {.query = 4}), 2, 6));
  EXPECT_FALSE(is_plain(CausalMask(), 2, 6));
  EXPECT_FALSE(is_plain(CausalMask(), 6, 2));
  const SegmentLayout one_segment =
      SegmentLayout::FromRanges(2, {{2, 5}}, 5, 7, PositionMode::kSequential).value();
  EXPECT_TRUE(is_plain(LayoutMask(one_segment), 9, 9));
}

}  // namespace
}  // namespace chorus
