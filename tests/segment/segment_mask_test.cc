#include "core/segment/segment_mask.h"

#include "gtest/gtest.h"

namespace chorus {
namespace {

struct Scenario {
  const char* name;
  int32_t num_segments, segment_length, separator_length, num_generated;
  int64_t allowed, total;
};

// Founding document 000: isolated separators, sequential positions, no prefix.
constexpr Scenario kScenarios[] = {{"Small", 3, 15, 2, 5, 620, 2916},
                                   {"Medium", 5, 25, 3, 8, 2757, 145 * 145},
                                   {"Large", 5, 50, 4, 15, 10485, 281 * 281},
                                   {"Custom", 4, 30, 3, 10, 3205, 139 * 139}};

SegmentLayout LayoutOf(const Scenario& scenario, int32_t prefix_length = 0) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = prefix_length;
  pieces.segment_lengths.assign(scenario.num_segments, scenario.segment_length);
  pieces.separator_length = scenario.separator_length;
  pieces.position_mode = PositionMode::kSequential;
  return SegmentLayout::FromPieces(pieces).value();
}

class SegmentMaskTest : public testing::TestWithParam<Scenario> {
 protected:
  const SegmentLayout layout_ = LayoutOf(GetParam());
  const SegmentMask mask_{&layout_};
  const int32_t length_ = layout_.original_length() + GetParam().num_generated;
};

TEST_P(SegmentMaskTest, TheNamedScenarioHasItsCount) {
  int64_t allowed = 0;
  for (int32_t q = 0; q < length_; ++q) {
    for (int32_t k = 0; k < length_; ++k) allowed += mask_.Allows(q, k);
  }
  EXPECT_EQ(allowed, GetParam().allowed);
  EXPECT_EQ(int64_t{length_} * length_, GetParam().total);
}

TEST_P(SegmentMaskTest, TheSameSegmentSeesItself) {
  for (const TokenRange& segment : layout_.segments()) {
    for (int32_t q = segment.begin; q < segment.end; ++q) {
      for (int32_t k = segment.begin; k <= q; ++k) ASSERT_TRUE(mask_.Allows(q, k)) << q << " " << k;
    }
  }
}

TEST_P(SegmentMaskTest, DifferentSegmentsDoNotSeeEachOther) {
  for (int32_t q = 0; q < layout_.original_length(); ++q) {
    for (int32_t k = 0; k < length_; ++k) {
      if (layout_.SegmentOf(q) == layout_.SegmentOf(k)) continue;
      ASSERT_FALSE(mask_.Allows(q, k)) << q << " " << k;
    }
  }
}

TEST_P(SegmentMaskTest, GeneratedTokenSeesEverything) {
  for (int32_t q = layout_.original_length(); q < length_; ++q) {
    for (int32_t k = 0; k <= q; ++k) ASSERT_TRUE(mask_.Allows(q, k)) << q << " " << k;
  }
}

TEST_P(SegmentMaskTest, CausalityHoldsEverywhere) {
  for (int32_t q = 0; q < length_; ++q) {
    for (int32_t k = q + 1; k < length_; ++k) ASSERT_FALSE(mask_.Allows(q, k)) << q << " " << k;
  }
}

TEST_P(SegmentMaskTest, AnIsolatedSeparatorAttendsToNothing) {
  int32_t num_separators = 0;
  for (int32_t q = 0; q < layout_.original_length(); ++q) {
    if (layout_.SegmentOf(q) >= 0) continue;
    ++num_separators;
    for (int32_t k = 0; k < length_; ++k) ASSERT_FALSE(mask_.Allows(q, k)) << q << " " << k;
  }
  EXPECT_EQ(num_separators, (GetParam().num_segments - 1) * GetParam().separator_length);
}

INSTANTIATE_TEST_SUITE_P(Scenarios, SegmentMaskTest, testing::ValuesIn(kScenarios),
                         [](const auto& info) { return info.param.name; });

TEST(SegmentMaskPrefixTest, PrefixAndSegmentsSeeThePrefixButSeparatorsDoNot) {
  const SegmentLayout layout = LayoutOf(kScenarios[0], /*prefix_length=*/4);
  const SegmentMask mask(&layout);
  for (int32_t q = 0; q < layout.original_length(); ++q) {
    const bool sees_prefix = q < 4 || layout.SegmentOf(q) >= 0;
    for (int32_t k = 0; k < 4; ++k) ASSERT_EQ(mask.Allows(q, k), sees_prefix && k <= q);
  }
}

TEST(SegmentMaskPrefixTest, ThePrefixSeesNothingElse) {
  const SegmentLayout layout = LayoutOf(kScenarios[0], /*prefix_length=*/4);
  const SegmentMask mask(&layout);
  for (int32_t q = 0; q < 4; ++q) {
    for (int32_t k = 0; k < 60; ++k) ASSERT_EQ(mask.Allows(q, k), k <= q);
  }
}

TEST(SegmentMaskPrefixTest, TheSuffixSeesEverythingBeforeIt) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 3;
  pieces.segment_lengths = {5, 6};
  pieces.separator_length = 2;
  pieces.suffix_length = 4;
  const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
  const SegmentMask mask(&layout);
  for (int32_t q = layout.original_length(); q < layout.length() + 3; ++q) {
    for (int32_t k = 0; k < layout.length() + 3; ++k) ASSERT_EQ(mask.Allows(q, k), k <= q);
  }
}

TEST(SegmentMaskPrefixTest, AnAttachedSeparatorSeesItsOwnSegmentOnly) {
  SegmentLayout::Pieces pieces;
  pieces.segment_lengths = {3, 3};
  pieces.separator_length = 2;
  pieces.separator_policy = SeparatorPolicy::kAttached;
  const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
  const SegmentMask mask(&layout);
  EXPECT_TRUE(mask.Allows(4, 0));
  EXPECT_TRUE(mask.Allows(4, 4));
  EXPECT_FALSE(mask.Allows(5, 4));
}

TEST(SegmentMaskPrefixTest, WithoutSegmentsItIsPlainlyCausalFromOriginalLengthOn) {
  const SegmentLayout layout =
      SegmentLayout::FromRanges(0, {}, 0, 6, PositionMode::kSequential).value();
  const SegmentMask mask(&layout);
  for (int32_t q = 0; q < 9; ++q) {
    for (int32_t k = 0; k < 9; ++k) EXPECT_EQ(mask.Allows(q, k), k <= q);
  }
}

}  // namespace
}  // namespace chorus
