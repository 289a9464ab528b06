#include "core/segment/sampled_positions.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/segment/segment_mask.h"
#include "tests/segment/mask_support.h"

namespace chorus {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::Not;

SegmentLayout Layout(std::vector<TokenRange> segments, int32_t original_length, int32_t length,
                     int32_t prefix_length = 0) {
  return SegmentLayout::FromRanges(prefix_length, std::move(segments), original_length, length,
                                   PositionMode::kSequential)
      .value();
}

std::vector<int32_t> Sample(const SegmentLayout& layout, int32_t max_positions,
                            bool includes_prefix = false) {
  return SamplePositions(layout, layout.length(), {max_positions, includes_prefix}).value();
}

// Founding document 003.
SegmentLayout DocumentLayout() {
  return Layout({{0, 48}, {48, 95}, {95, 143}, {143, 192}, {192, 238}}, 238, 248);
}

TEST(SampledPositionsTest, TheDocumentsExampleHasItsPositions) {
  EXPECT_THAT(Sample(DocumentLayout(), 25),
              ElementsAre(0, 16, 32, 47, 48, 63, 79, 94, 95, 111, 127, 142, 143, 159, 175, 191, 192,
                          207, 222, 237, 238, 239, 240, 241, 242));
}

TEST(SampledPositionsTest, TheDocumentsExampleHasItsLabels) {
  std::vector<std::string> labels;
  for (int32_t position : Sample(DocumentLayout(), 25)) {
    labels.push_back(PositionLabel(DocumentLayout(), position));
  }
  EXPECT_THAT(labels, ElementsAre("S1", "", "", "E1", "S2", "", "", "E2", "S3", "", "", "E3", "S4",
                                  "", "", "E4", "S5", "", "", "E5", "G0", "", "", "", ""));
}

TEST(SampledPositionsTest, AboveTheCapTheLowestPriorityGoesFirstAndInItTheLatest) {
  // 26 candidates: the last goes first, then generated ones, then thirds, then original_length - 1.
  const SegmentLayout layout = DocumentLayout();
  EXPECT_THAT(Sample(layout, 26), Contains(247));
  EXPECT_THAT(Sample(layout, 25), Not(Contains(247)));
  EXPECT_THAT(Sample(layout, 23), ElementsAre(0, 16, 32, 47, 48, 63, 79, 94, 95, 111, 127, 142, 143,
                                              159, 175, 191, 192, 207, 222, 237, 238, 239, 240));
  EXPECT_THAT(Sample(layout, 14),
              ElementsAre(0, 16, 32, 47, 48, 63, 94, 95, 142, 143, 191, 192, 237, 238));
  EXPECT_THAT(Sample(layout, 11), ElementsAre(0, 47, 48, 94, 95, 142, 143, 191, 192, 237, 238));
}

TEST(SampledPositionsTest, OriginalLengthStaysWhereOriginalLengthLessOneGoes) {
  const SegmentLayout layout = Layout({{0, 10}, {12, 22}}, 25, 40);
  EXPECT_THAT(Sample(layout, 5), ElementsAre(0, 9, 12, 21, 25));
  EXPECT_THAT(Sample(layout, 6), ElementsAre(0, 9, 12, 21, 24, 25));
}

TEST(SampledPositionsTest, WholeSegmentsAreLeftOutEvenlyButNeverTheFirstOrTheLast) {
  std::vector<TokenRange> segments;
  for (int32_t i = 0; i < 9; ++i) segments.push_back({10 * i, 10 * i + 8});
  const SegmentLayout layout = Layout(segments, 90, 95);
  EXPECT_THAT(Sample(layout, 11), ElementsAre(0, 7, 20, 27, 40, 47, 60, 67, 80, 87, 90));
  EXPECT_THAT(Sample(layout, 7), ElementsAre(0, 7, 40, 47, 80, 87, 90));
  EXPECT_THAT(Sample(layout, 5), ElementsAre(0, 7, 80, 87, 90));
}

TEST(SampledPositionsTest, BelowTheCapTheLargestGapIsSplit) {
  // 0, 99 and 100 (the last), then 49 (0..99), then 24 (0..49), then 74 (49..99).
  const SegmentLayout layout = Layout({{0, 1}, {99, 100}}, 100, 101);
  EXPECT_THAT(Sample(layout, 6), ElementsAre(0, 24, 49, 74, 99, 100));
}

TEST(SampledPositionsTest, AShortSequenceIsShownWhole) {
  std::vector<int32_t> all(20);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_THAT(Sample(Layout({{0, 8}, {8, 15}}, 15, 20), 20), ElementsAreArray(all));
}

TEST(SampledPositionsTest, ThePrefixIsSampledOnRequest) {
  const SegmentLayout layout = Layout({{30, 40}, {40, 50}}, 50, 60, /*prefix_length=*/30);
  EXPECT_THAT(Sample(layout, 8), Not(Contains(0)));
  EXPECT_THAT(Sample(layout, 8, /*includes_prefix=*/true),
              ElementsAre(0, 29, 30, 33, 39, 40, 49, 50));
  EXPECT_THAT(Sample(layout, 5, /*includes_prefix=*/true), ElementsAre(30, 39, 40, 49, 50));
}

TEST(SampledPositionsTest, FuzzedLayoutsKeepThePromises) {
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const int32_t length = layout.length() + Below(random, 12);
    const int32_t cap = kMinSampledPositions + Below(random, 20);
    const std::vector<int32_t> positions =
        SamplePositions(layout, length, {.max_positions = cap}).value();
    ASSERT_LE(positions.size(), static_cast<size_t>(cap));
    ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end()));
    const std::set<int32_t> shown(positions.begin(), positions.end());
    ASSERT_EQ(shown.size(), positions.size());
    if (layout.original_length() < length) ASSERT_TRUE(shown.contains(layout.original_length()));
    if (layout.segments().empty()) continue;
    ASSERT_TRUE(shown.contains(layout.segments().front().begin));
    ASSERT_TRUE(shown.contains(layout.segments().front().end - 1));
    ASSERT_TRUE(shown.contains(layout.segments().back().begin));
    ASSERT_TRUE(shown.contains(layout.segments().back().end - 1));
    for (int32_t position : positions) ASSERT_TRUE(position >= 0 && position < length);
  }
}

TEST(SampledPositionsTest, TooSmallACapIsRefused) {
  EXPECT_EQ(SamplePositions(DocumentLayout(), 248, {.max_positions = 4}).status().message(),
            "max_positions: 4 is not valid: must be at least 5");
}

// The named layouts of founding document 000, and what their displayed matrix holds: counted here
// from the mask's definition over the sampled positions.
struct NamedLayout {
  const char* name;
  int32_t num_segments, segment_length, separator_length, num_generated, max_positions;
  int64_t shown_allowed, shown_total;
};

class DisplayedLayoutTest : public testing::TestWithParam<NamedLayout> {};

TEST_P(DisplayedLayoutTest, HasTheDocumentsCount) {
  const NamedLayout& named = GetParam();
  std::vector<TokenRange> segments;
  int32_t index = 0;
  for (int32_t i = 0; i < named.num_segments; ++i) {
    index += i > 0 ? named.separator_length : 0;
    segments.push_back({index, index + named.segment_length});
    index += named.segment_length;
  }
  const SegmentLayout layout = Layout(segments, index, index + named.num_generated);
  const std::vector<int32_t> positions = Sample(layout, named.max_positions);
  int64_t allowed = 0;
  for (int32_t q : positions) {
    for (int32_t k : positions) {
      const auto owner = [&](int32_t i) {
        for (size_t s = 0; s < segments.size(); ++s) {
          if (segments[s].begin <= i && i < segments[s].end) return static_cast<int32_t>(s);
        }
        return -1;
      };
      allowed += k <= q && (q >= index || (owner(q) >= 0 && owner(q) == owner(k)));
    }
  }
  EXPECT_EQ(allowed, named.shown_allowed);
  EXPECT_EQ(static_cast<int64_t>(positions.size() * positions.size()), named.shown_total);
}

INSTANTIATE_TEST_SUITE_P(Scenarios, DisplayedLayoutTest,
                         testing::Values(NamedLayout{"Small", 3, 15, 2, 5, 54, 620, 2916},
                                         NamedLayout{"Medium", 5, 25, 3, 8, 30, 238, 900},
                                         NamedLayout{"Large", 5, 50, 4, 15, 35, 296, 1225},
                                         NamedLayout{"Custom", 4, 30, 3, 10, 30, 249, 900}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RepresentativeQueriesTest, AreFourAndStayInTheirSegments) {
  const auto queries = [](const SegmentLayout& layout) {
    std::vector<int32_t> indexes;
    for (const auto& query : RepresentativeQueries(layout, layout.length())) {
      indexes.push_back(query.query);
    }
    return indexes;
  };
  EXPECT_THAT(queries(DocumentLayout()), ElementsAre(5, 197, 238, 247));
  EXPECT_THAT(queries(Layout({{0, 3}, {4, 10}}, 10, 12)), ElementsAre(2, 9, 10, 11));
  EXPECT_THAT(queries(Layout({{0, 3}}, 3, 3)), ElementsAre(2, 2, 2));
  EXPECT_THAT(queries(Layout({}, 0, 3)), ElementsAre(0, 2));
}

}  // namespace
}  // namespace chorus
