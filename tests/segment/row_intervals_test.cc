#include "core/segment/row_intervals.h"

#include <algorithm>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/segment/attention_window.h"
#include "core/segment/segment_mask.h"

namespace chorus {
namespace {

using testing::ElementsAre;

// Segments of one or a few tokens, touching or with gaps, gaps at either end, none at all; with and
// without prefix and suffix; original_length may be 0 and may be the length.
SegmentLayout RandomLayout(std::mt19937& random) {
  const auto below = [&](int32_t limit) { return static_cast<int32_t>(random() % limit); };
  const int32_t prefix_length = below(2) * below(6);
  int32_t index = prefix_length;
  std::vector<TokenRange> segments;
  for (int32_t i = 0, n = below(6); i < n; ++i) {
    index += below(2) * below(4);
    const int32_t begin = index;
    index += 1 + below(2) * below(7);
    segments.push_back({begin, index});
  }
  const int32_t original_length = index + below(2) * below(4);
  const int32_t length = original_length + below(2) * below(5);
  return SegmentLayout::FromRanges(prefix_length, std::move(segments), original_length, length,
                                   PositionMode::kOverlapping)
      .value();
}

bool Sees(const RowIntervals::Run& run, int32_t q, int32_t k) {
  return k <= q && std::any_of(run.keys.begin(), run.keys.end(), [&](const KeyInterval& keys) {
           return keys.begin <= k && k < keys.end;
         });
}

void ExpectWellFormed(const RowIntervals& intervals, int32_t length) {
  int32_t next_row = 0;
  for (const RowIntervals::Run& run : intervals.runs()) {
    ASSERT_EQ(run.rows.begin, next_row);
    ASSERT_GT(run.rows.end, run.rows.begin);
    next_row = run.rows.end;
    int32_t previous_end = 0;
    for (const KeyInterval& keys : run.keys) {
      ASSERT_GE(keys.begin, previous_end);
      ASSERT_GT(keys.end, keys.begin);
      previous_end = keys.end;
    }
  }
  ASSERT_EQ(next_row, length);
}

TEST(RowIntervalsTest, EqualThePredicateOnFuzzedLayouts) {
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const SegmentMask mask(&layout);
    const int32_t length = layout.length() + static_cast<int32_t>(random() % 3);
    for (bool split : {false, true}) {
      const RowIntervals intervals = RowIntervals::FromLayout(layout, length, split);
      ExpectWellFormed(intervals, length);
      int64_t allowed = 0;
      for (int32_t q = 0; q < length; ++q) {
        const RowIntervals::Run& run = intervals.RunOf(q);
        ASSERT_TRUE(run.rows.begin <= q && q < run.rows.end);
        for (int32_t k = 0; k < length; ++k) {
          ASSERT_EQ(Sees(run, q, k), mask.Allows(q, k)) << "q " << q << " k " << k;
          allowed += mask.Allows(q, k);
        }
        for (const KeyInterval& keys : run.keys) {
          for (int32_t k = keys.begin; k < keys.end; ++k) {
            const bool is_segment_column =
                split && q >= layout.original_length() && layout.SegmentOf(k) >= 0;
            ASSERT_EQ(keys.is_segment, is_segment_column) << "q " << q << " k " << k;
          }
        }
      }
      ASSERT_EQ(intervals.CountAllowed(), allowed);
    }
  }
}

// The definition, key by key: the segment mask and the window of the two positions.
TEST(RowIntervalsTest, CutAtPositionsTheyEqualThePredicateUnderWindows) {
  using Kind = AttentionWindow::Kind;
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const SegmentMask mask(&layout);
    const int32_t length = layout.length() + static_cast<int32_t>(random() % 3);
    const auto whole = RowIntervals::FromLayout(layout, length, /*split=*/random() % 2 == 0);
    const RowIntervals cut = whole.CutAtPositions(layout);
    ExpectWellFormed(cut, length);
    const AttentionWindow window = {random() % 2 == 0 ? Kind::kSliding : Kind::kChunked,
                                    1 + static_cast<int32_t>(random() % 9)};
    for (int32_t q = 0; q < length; ++q) {
      const RowIntervals::Run& run = cut.RunOf(q);
      ASSERT_EQ(run.rows, whole.RunOf(q).rows);
      const int32_t position = layout.PositionOf(q);
      // A run's rows stand at consecutive positions: a kernel knows its first row's only.
      ASSERT_EQ(position, layout.PositionOf(run.rows.begin) + q - run.rows.begin);
      for (int32_t k = 0; k <= q; ++k) {
        const auto keys = std::find_if(run.keys.begin(), run.keys.end(), [k](const auto& each) {
          return each.begin <= k && k < each.end;
        });
        const int32_t key_position = layout.PositionOf(k);
        if (keys != run.keys.end()) ASSERT_EQ(k + keys->position_shift, key_position);
        const bool sees = keys != run.keys.end() && key_position >= window.FirstPosition(position);
        const bool in_window = window.kind == Kind::kSliding
                                   ? position - key_position < window.size
                                   : position / window.size == key_position / window.size;
        ASSERT_EQ(sees, mask.Allows(q, k) && in_window) << "q " << q << " k " << k;
      }
    }
  }
}

TEST(RowIntervalsTest, OnlyJumpsOfPositionsCut) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 2;
  pieces.segment_lengths = {3, 5, 1};
  pieces.suffix_length = 2;
  const SegmentLayout overlapping = *SegmentLayout::FromPieces(pieces);
  const auto cut = RowIntervals::FromLayout(overlapping, 14, false).CutAtPositions(overlapping);
  // The first segment goes on where the prefix ends; the suffix after the longest segment.
  EXPECT_THAT(cut.RunOf(13).keys,
              ElementsAre(KeyInterval{0, 5, false, 0}, KeyInterval{5, 10, false, -3},
                          KeyInterval{10, 11, false, -8}, KeyInterval{11, 14, false, -4}));
  EXPECT_THAT(cut.RunOf(6).keys,
              ElementsAre(KeyInterval{0, 2, false, 0}, KeyInterval{5, 10, false, -3}));
  pieces.position_mode = PositionMode::kSequential;
  const SegmentLayout sequential = *SegmentLayout::FromPieces(pieces);
  const auto same = RowIntervals::FromLayout(sequential, 14, false).CutAtPositions(sequential);
  EXPECT_THAT(same.RunOf(13).keys, ElementsAre(KeyInterval{0, 14, false, 0}));
}

TEST(RowIntervalsTest, TheFuzzedLayoutsCoverTheEdgeCases) {
  int no_segments = 0, touching = 0, gap_first = 0, gap_last = 0, empty = 0, zero_original = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const auto& segments = layout.segments();
    empty += layout.length() == 0;
    zero_original += layout.original_length() == 0 && layout.length() > 0;
    no_segments += segments.empty();
    if (segments.empty()) continue;
    gap_first += segments.front().begin > layout.prefix_length();
    gap_last += segments.back().end < layout.original_length();
    for (size_t i = 1; i < segments.size(); ++i) {
      touching += segments[i].begin == segments[i - 1].end;
    }
  }
  for (int count : {no_segments, touching, gap_first, gap_last, empty, zero_original}) {
    EXPECT_GT(count, 20);
  }
}

TEST(RowIntervalsTest, NamedScenariosHaveTheirCounts) {
  const auto count = [](int32_t num_segments, int32_t length, int32_t separator,
                        int32_t generated) {
    SegmentLayout::Pieces pieces;
    pieces.segment_lengths.assign(num_segments, length);
    pieces.separator_length = separator;
    const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
    return RowIntervals::FromLayout(layout, layout.length() + generated, false).CountAllowed();
  };
  EXPECT_EQ(count(3, 15, 2, 5), 620);
  EXPECT_EQ(count(5, 25, 3, 8), 2757);
  EXPECT_EQ(count(5, 50, 4, 15), 10485);
  EXPECT_EQ(count(4, 30, 3, 10), 3205);
}

TEST(RowIntervalsTest, FusedColumnsAreCutWhereSegmentsBeginAndEnd) {
  // Prefix 2, segments [2, 4) [4, 6) touching, a gap, [7, 9), suffix of 1, two generated.
  const SegmentLayout layout =
      SegmentLayout::FromRanges(2, {{2, 4}, {4, 6}, {7, 9}}, 9, 10, PositionMode::kOverlapping)
          .value();
  const RowIntervals split = RowIntervals::FromLayout(layout, 12, true);
  EXPECT_THAT(split.RunOf(11).keys, ElementsAre(KeyInterval{0, 2, false}, KeyInterval{2, 6, true},
                                                KeyInterval{6, 7, false}, KeyInterval{7, 9, true},
                                                KeyInterval{9, 12, false}));
  const RowIntervals merged = RowIntervals::FromLayout(layout, 12, false);
  EXPECT_THAT(merged.RunOf(11).keys, ElementsAre(KeyInterval{0, 12, false}));
}

TEST(RowIntervalsTest, ASegmentsIntervalsDoNotDependOnWhereItStands) {
  // The first segment touches the prefix; its intervals are still prefix and own, as any other's.
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 3;
  pieces.segment_lengths = {2, 2};
  const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
  const RowIntervals intervals = RowIntervals::FromLayout(layout, 7, false);
  EXPECT_THAT(intervals.RunOf(3).keys, ElementsAre(KeyInterval{0, 3}, KeyInterval{3, 5}));
  EXPECT_THAT(intervals.RunOf(5).keys, ElementsAre(KeyInterval{0, 3}, KeyInterval{5, 7}));
}

// O(segments): were it O(length^2), 10^10 pairs would not end within the test's time limit.
TEST(RowIntervalsTest, AHundredThousandTokensAreCounted) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 700;
  pieces.segment_lengths.assign(200, 490);
  pieces.separator_length = 5;
  pieces.suffix_length = 105;
  const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
  const int32_t length = layout.length() + 200;
  ASSERT_EQ(length, 700 + 200 * 490 + 199 * 5 + 105 + 200);
  const int64_t fused_rows = length - layout.original_length();
  const int64_t fused_first = layout.original_length();
  const int64_t expected = 700 * 701 / 2 + 200 * (490 * 491 / 2 + 490 * int64_t{700}) +
                           fused_rows * (fused_first + 1) + fused_rows * (fused_rows - 1) / 2;
  for (bool split : {false, true}) {
    const RowIntervals intervals = RowIntervals::FromLayout(layout, length, split);
    EXPECT_EQ(intervals.CountAllowed(), expected);
    EXPECT_EQ(intervals.runs().size(), 1u + 200 + 199 + 1);
  }
}

TEST(RowIntervalsDeathTest, RowsOutsideAreOurOwnBug) {
  const SegmentLayout layout = SegmentLayout::FromPieces({}).value();
  EXPECT_DEATH(RowIntervals::FromLayout(layout, -1, false), "length");
  const RowIntervals empty = RowIntervals::FromLayout(layout, 0, false);
  EXPECT_EQ(empty.CountAllowed(), 0);
  EXPECT_DEATH(empty.RunOf(0), "runs_");
}

}  // namespace
}  // namespace chorus
