#include "core/segment/segment_layout.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

SegmentLayout MakeLayout(const SegmentLayout::Pieces& pieces) {
  return SegmentLayout::FromPieces(pieces).value();
}

std::vector<int32_t> Positions(const SegmentLayout& layout, int32_t length) {
  std::vector<int32_t> positions;
  for (int32_t i = 0; i < length; ++i) positions.push_back(layout.PositionOf(i));
  return positions;
}

// Prefix of 2, segments of 3, 1 and 2, separators of 2, suffix of 1.
SegmentLayout::Pieces Example(SeparatorPolicy policy, PositionMode mode) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 2;
  pieces.segment_lengths = {3, 1, 2};
  pieces.separator_length = 2;
  pieces.separator_policy = policy;
  pieces.position_mode = mode;
  pieces.suffix_length = 1;
  return pieces;
}

TEST(SegmentLayoutTest, IsolatedSeparatorsBelongToNobody) {
  const SegmentLayout layout =
      MakeLayout(Example(SeparatorPolicy::kIsolated, PositionMode::kSequential));
  EXPECT_THAT(layout.segments(),
              ElementsAre(TokenRange{2, 5}, TokenRange{7, 8}, TokenRange{10, 12}));
  EXPECT_THAT(layout.last_own_tokens(), ElementsAre(4, 7, 11));
  EXPECT_EQ(layout.prefix_length(), 2);
  EXPECT_EQ(layout.original_length(), 12);
  EXPECT_EQ(layout.length(), 13);
  for (int32_t separator : {5, 6, 8, 9}) EXPECT_EQ(layout.SegmentOf(separator), -1);
}

TEST(SegmentLayoutTest, AttachedSeparatorsBelongToTheSegmentBeforeThem) {
  const SegmentLayout layout =
      MakeLayout(Example(SeparatorPolicy::kAttached, PositionMode::kSequential));
  EXPECT_THAT(layout.segments(),
              ElementsAre(TokenRange{2, 7}, TokenRange{7, 10}, TokenRange{10, 12}));
  EXPECT_THAT(layout.last_own_tokens(), ElementsAre(4, 7, 11));
  EXPECT_EQ(layout.original_length(), 12);
}

TEST(SegmentLayoutTest, SegmentOfKnowsEveryToken) {
  const SegmentLayout layout =
      MakeLayout(Example(SeparatorPolicy::kAttached, PositionMode::kOverlapping));
  std::vector<int32_t> owners;
  for (int32_t i = 0; i < 15; ++i) owners.push_back(layout.SegmentOf(i));
  EXPECT_THAT(owners, ElementsAre(-1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, -1, -1, -1));
}

TEST(SegmentLayoutTest, SequentialPositionsRunThroughTheSequence) {
  for (SeparatorPolicy policy : {SeparatorPolicy::kIsolated, SeparatorPolicy::kAttached}) {
    const SegmentLayout layout = MakeLayout(Example(policy, PositionMode::kSequential));
    EXPECT_THAT(Positions(layout, 15),
                ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14));
  }
}

TEST(SegmentLayoutTest, OverlappingSegmentsStartAtThePrefixLength) {
  // A separator continues its segment under either policy; the suffix follows the largest position.
  for (SeparatorPolicy policy : {SeparatorPolicy::kIsolated, SeparatorPolicy::kAttached}) {
    const SegmentLayout layout = MakeLayout(Example(policy, PositionMode::kOverlapping));
    EXPECT_THAT(Positions(layout, 15), ElementsAre(0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 2, 3, 7, 8, 9));
  }
}

TEST(SegmentLayoutTest, GeneratedTokensGoOnFromTheLargestPositionWithoutASuffix) {
  SegmentLayout::Pieces pieces;
  pieces.segment_lengths = {2, 5, 3};
  const SegmentLayout layout = MakeLayout(pieces);
  EXPECT_THAT(Positions(layout, 12), ElementsAre(0, 1, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6));
}

TEST(SegmentLayoutTest, APrefixAloneGoesOnWhereItEnds) {
  for (PositionMode mode : {PositionMode::kSequential, PositionMode::kOverlapping}) {
    SegmentLayout::Pieces pieces;
    pieces.prefix_length = 3;
    pieces.suffix_length = 1;
    pieces.position_mode = mode;
    const SegmentLayout layout = MakeLayout(pieces);
    EXPECT_THAT(Positions(layout, 6), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_THAT(layout.segments(), ElementsAre());
  }
}

TEST(SegmentLayoutTest, AnEmptyLayoutStartsAtPositionZero) {
  const SegmentLayout layout = MakeLayout({});
  EXPECT_EQ(layout.length(), 0);
  EXPECT_EQ(layout.PositionOf(0), 0);
  EXPECT_EQ(layout.PositionOf(3), 3);
}

TEST(SegmentLayoutTest, NoSeparatorStandsAfterTheLastSegment) {
  SegmentLayout::Pieces pieces;
  pieces.segment_lengths = {4};
  pieces.separator_length = 3;
  pieces.separator_policy = SeparatorPolicy::kAttached;
  EXPECT_EQ(MakeLayout(pieces).original_length(), 4);
}

TEST(SegmentLayoutTest, FromRangesContinuesAGapAfterTheTokenBeforeIt) {
  // Prefix 2, gap, segment, gap of 2, segment, gap, suffix of 2.
  const SegmentLayout layout =
      SegmentLayout::FromRanges(2, {{3, 5}, {7, 8}}, 9, 11, PositionMode::kOverlapping).value();
  EXPECT_THAT(Positions(layout, 12), ElementsAre(0, 1, 2, 2, 3, 4, 5, 2, 3, 6, 7, 8));
  EXPECT_THAT(layout.last_own_tokens(), ElementsAre(4, 7));
}

TEST(SegmentLayoutTest, FromRangesEqualsFromPieces) {
  for (PositionMode mode : {PositionMode::kSequential, PositionMode::kOverlapping}) {
    const SegmentLayout pieces = MakeLayout(Example(SeparatorPolicy::kIsolated, mode));
    const SegmentLayout ranges =
        SegmentLayout::FromRanges(2, {{2, 5}, {7, 8}, {10, 12}}, 12, 13, mode).value();
    EXPECT_EQ(Positions(pieces, 20), Positions(ranges, 20));
    EXPECT_EQ(pieces.segments(), ranges.segments());
    EXPECT_EQ(pieces.last_own_tokens(), ranges.last_own_tokens());
  }
}

struct BadRanges {
  const char* name;
  int32_t prefix_length;
  std::vector<TokenRange> segments;
  int32_t original_length, length;
  std::vector<const char*> message;
};

class BadRangesTest : public testing::TestWithParam<BadRanges> {};

TEST_P(BadRangesTest, AreRefusedByName) {
  const BadRanges& bad = GetParam();
  const auto layout = SegmentLayout::FromRanges(
      bad.prefix_length, bad.segments, bad.original_length, bad.length, PositionMode::kOverlapping);
  ASSERT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : bad.message) {
    EXPECT_THAT(std::string(layout.status().message()), HasSubstr(part));
  }
}

INSTANTIATE_TEST_SUITE_P(
    SegmentLayout, BadRangesTest,
    testing::Values(
        BadRanges{"NegativePrefix", -1, {}, 0, 0, {"prefix_length -1", "negative"}},
        BadRanges{"OriginalBelowPrefix", 5, {}, 4, 9, {"original_length 4", "prefix_length 5"}},
        BadRanges{"LengthBelowOriginal", 0, {}, 8, 7, {"length 7", "original_length 8"}},
        BadRanges{"TooLong", 0, {}, 0, (1 << 30) + 1, {"length 1073741825", "1073741824"}},
        BadRanges{"EmptySegment", 0, {{0, 2}, {3, 3}}, 5, 5, {"segment 1 [3, 3)", "empty"}},
        BadRanges{"BackwardSegment", 0, {{4, 2}}, 5, 5, {"segment 0 [4, 2)", "empty"}},
        BadRanges{"InPrefix", 3, {{2, 4}}, 5, 5, {"segment 0 [2, 4)", "prefix_length 3"}},
        BadRanges{"Overlap", 0, {{0, 3}, {2, 5}}, 5, 5, {"segment 1 [2, 5)", "overlaps", "[0, 3)"}},
        BadRanges{"OutOfOrder", 0, {{3, 5}, {0, 2}}, 5, 5, {"segment 1 [0, 2)", "precedes"}},
        BadRanges{"PastOriginal", 0, {{0, 6}}, 5, 9, {"segment 0 [0, 6)", "original_length 5"}}),
    [](const auto& info) { return info.param.name; });

TEST(SegmentLayoutTest, BadPiecesAreRefusedByName) {
  const auto message = [](const SegmentLayout::Pieces& pieces) {
    const auto layout = SegmentLayout::FromPieces(pieces);
    EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(layout.status().message());
  };
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = -3;
  EXPECT_THAT(message(pieces), HasSubstr("prefix_length -3"));
  pieces = {};
  pieces.separator_length = -1;
  EXPECT_THAT(message(pieces), HasSubstr("separator_length -1"));
  pieces = {};
  pieces.suffix_length = -2;
  EXPECT_THAT(message(pieces), HasSubstr("suffix_length -2"));
  pieces = {};
  pieces.segment_lengths = {4, 0};
  EXPECT_THAT(message(pieces), HasSubstr("segment_lengths[1] is 0"));
  // Sums that do not fit 32 bits are counted, not wrapped.
  pieces.segment_lengths = {2147483647, 2147483647, 2147483647};
  pieces.separator_length = 2147483647;
  EXPECT_THAT(message(pieces), HasSubstr("10737418235 tokens"));
}

}  // namespace
}  // namespace chorus
