#include "core/kernels/tile_plan.h"

#include <limits>
#include <map>
#include <random>
#include <utility>

#include "gtest/gtest.h"

#include "core/segment/row_intervals.h"
#include "core/segment/segment_layout.h"
#include "core/segment/segment_mask.h"

namespace chorus {
namespace {

using Kind = AttentionWindow::Kind;

// One sequence of a step: the layout that says what is allowed, and its plan made of intervals.
struct Sequence {
  SegmentLayout layout;
  int32_t length = 0;
  int32_t row_begin = 0;  // of the step; its first row is token first_token
  int32_t first_token = 0;
};

struct Step {
  std::vector<Sequence> sequences;
  AttentionPlan plan;
  int32_t num_rows = 0;
};

// Empty prefix and suffix, segments of one token, many and none: whatever FromPieces takes.
SegmentLayout RandomLayout(std::mt19937& random) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = static_cast<int32_t>(random() % 3 * (random() % 60));
  for (uint32_t i = 0, n = random() % 6; i < n; ++i) {
    pieces.segment_lengths.push_back(1 + static_cast<int32_t>(random() % (random() % 2 ? 3 : 90)));
  }
  pieces.separator_length = static_cast<int32_t>(random() % 3);
  pieces.separator_policy =
      random() % 2 == 0 ? SeparatorPolicy::kIsolated : SeparatorPolicy::kAttached;
  pieces.suffix_length = static_cast<int32_t>(random() % 5);
  pieces.position_mode = random() % 2 == 0 ? PositionMode::kOverlapping : PositionMode::kSequential;
  if (pieces.prefix_length + pieces.suffix_length == 0 && pieces.segment_lengths.empty()) {
    pieces.suffix_length = 1;
  }
  return SegmentLayout::FromPieces(pieces).value();
}

void Append(std::mt19937& random, Step& step) {
  Sequence sequence{RandomLayout(random)};
  sequence.length = sequence.layout.length() + static_cast<int32_t>(random() % 70);
  sequence.first_token = static_cast<int32_t>(random() % sequence.length);
  sequence.row_begin = step.num_rows;
  const RowIntervals intervals =
      RowIntervals::FromLayout(sequence.layout, sequence.length, random() % 2 == 0);
  const RowIntervals windowed = intervals.CutAtPositions(sequence.layout);
  for (const RowIntervals::Run& run : intervals.runs()) {
    const int32_t begin = std::max(run.rows.begin, sequence.first_token);
    if (begin >= run.rows.end) continue;
    AttentionRun out;
    out.row_begin = step.num_rows;
    out.row_end = step.num_rows += run.rows.end - begin;
    out.query_begin = begin;
    out.position_begin = sequence.layout.PositionOf(begin);
    std::vector<KeyInterval>& all = step.plan.intervals;
    out.interval_begin = static_cast<int32_t>(all.size());
    all.insert(all.end(), run.keys.begin(), run.keys.end());
    out.interval_end = out.windowed_begin = static_cast<int32_t>(all.size());
    const std::vector<KeyInterval>& keys = windowed.RunOf(begin).keys;
    all.insert(all.end(), keys.begin(), keys.end());
    out.windowed_end = static_cast<int32_t>(all.size());
    step.plan.runs.push_back(out);
  }
  step.sequences.push_back(std::move(sequence));
}

Step RandomStep(uint32_t seed) {
  std::mt19937 random(seed);
  Step step;
  for (uint32_t i = 0, n = 1 + random() % 3; i < n; ++i) Append(random, step);
  return step;
}

using Pairs = std::map<std::pair<int32_t, int32_t>, int>;  // (row, key) -> how often

Pairs AllowedPairs(const Step& step, const AttentionWindow& window) {
  Pairs pairs;
  for (const Sequence& sequence : step.sequences) {
    const SegmentMask mask(&sequence.layout);
    for (int32_t q = sequence.first_token; q < sequence.length; ++q) {
      for (int32_t k = 0; k <= q; ++k) {
        if (mask.Allows(q, k) &&
            window.Allows(sequence.layout.PositionOf(q), sequence.layout.PositionOf(k))) {
          ++pairs[{sequence.row_begin + q - sequence.first_token, k}];
        }
      }
    }
  }
  return pairs;
}

// What a kernel computes: full blocks without a look at rows, the rest by the two tests.
Pairs PlannedPairs(const TilePlan& tiles, const AttentionWindow& window) {
  Pairs pairs;
  for (const Tile& tile : tiles.tiles) {
    for (int32_t i = tile.span_begin; i < tile.span_end; ++i) {
      const KeySpan& span = tiles.spans[i];
      for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
        const int32_t query = tile.query_begin + row - tile.row_begin;
        const int32_t position = tile.position_begin + row - tile.row_begin;
        for (int32_t k = span.begin; k < span.end; ++k) {
          const bool is_full = span.full_begin <= k && k < span.full_end;
          const bool is_allowed =
              k <= query && (window.is_full() || window.Allows(position, k + span.position_shift));
          if (is_full || is_allowed) ++pairs[{row, k}];
        }
      }
    }
  }
  return pairs;
}

int32_t SpanKeysOf(const TileShape& shape, int32_t query) {
  if (shape.max_spans == 0) return shape.span_keys;
  int32_t keys = shape.span_keys;
  while (keys * shape.max_spans < query + 1) keys += shape.key_block;
  return keys;
}

void ExpectOnGrid(const TilePlan& tiles, const TileShape& shape) {
  int32_t span_end = 0;
  for (size_t t = 0; t < tiles.tiles.size(); ++t) {
    const Tile& tile = tiles.tiles[t];
    EXPECT_LE(tile.row_end - tile.row_begin, shape.tile_rows);
    EXPECT_LT(tile.row_begin, tile.row_end);
    EXPECT_EQ(tile.span_begin, span_end);
    span_end = tile.span_end;
    for (int32_t i = tile.span_begin; i < tile.span_end; ++i) {
      const KeySpan& span = tiles.spans[i];
      EXPECT_EQ(span.tile, static_cast<int32_t>(t));
      EXPECT_LT(span.begin, span.end);
      EXPECT_LE(span.end - span.begin, SpanKeysOf(shape, tile.query_begin));
      EXPECT_EQ((span.full_begin - span.begin) % shape.key_block, 0);
      EXPECT_EQ((span.full_end - span.full_begin) % shape.key_block, 0);
      EXPECT_TRUE(span.begin <= span.full_begin && span.full_begin <= span.full_end &&
                  span.full_end <= span.end);
    }
  }
  EXPECT_EQ(span_end, static_cast<int32_t>(tiles.spans.size()));
}

const AttentionWindow kWindows[] = {{},
                                    {Kind::kSliding, 1},
                                    {Kind::kSliding, 40},
                                    {Kind::kSliding, 64},
                                    {Kind::kChunked, 16},
                                    {Kind::kChunked, 50}};
const TileShape kShapes[] = {{1, 16, 16}, {5, 16, 64}, {16, 64, 512}, {21, 64, 64}, {64, 64, 1024},
                             {5, 16, 32, 4}, {16, 64, 64, 2}};

TEST(TilePlanTest, HoldsExactlyThePairsOfThePredicateEachOnce) {
  for (uint32_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Step step = RandomStep(seed);
    const AttentionWindow& window = kWindows[seed % std::size(kWindows)];
    const TileShape& shape = kShapes[seed % std::size(kShapes)];
    const TilePlan tiles = PlanTiles(step.plan, window, shape);
    const Pairs expected = AllowedPairs(step, window);
    ASSERT_EQ(PlannedPairs(tiles, window), expected);
    ExpectOnGrid(tiles, shape);
    EXPECT_EQ(CountAllowedPairs(tiles, window), static_cast<int64_t>(expected.size()));
  }
}

// Blocks and spans begin where they would without the rows before: so a row adds in one order.
TEST(TilePlanTest, SpansStandOnTheGridOfTheirInterval) {
  AttentionPlan plan;
  plan.intervals = {{10, 5000}};
  plan.runs = {{.row_begin = 0,
                .row_end = 1,
                .query_begin = 4000,
                .interval_end = 1,
                .windowed_end = 1,
                .position_begin = 4000}};
  const TileShape shape = {16, 64, 512};
  const TilePlan whole = PlanTiles(plan, {}, shape);
  ASSERT_EQ(whole.spans.size(), 8u);
  EXPECT_EQ(whole.longest_span, 512);
  EXPECT_EQ(whole.spans[0].full_end, 10 + 512);
  EXPECT_EQ(whole.spans[7].begin, 10 + 7 * 512);
  EXPECT_EQ(whole.spans[7].end, 4001);
  EXPECT_EQ(whole.spans[7].full_end, 10 + 7 * 512 + 384);
  const TilePlan windowed = PlanTiles(plan, {Kind::kSliding, 1000}, shape);
  ASSERT_EQ(windowed.spans.size(), 3u);
  EXPECT_EQ(windowed.spans[0].begin, 10 + 46 * 64);  // holds key 3,001, the first that is seen
  EXPECT_EQ(windowed.spans[0].end, whole.spans[5].end);
  EXPECT_EQ(windowed.spans[2].full_end, whole.spans[7].full_end);
}

// Of each row, as far as it sees.
std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> SpansOfRows(const TilePlan& tiles) {
  std::map<int32_t, std::vector<std::pair<int32_t, int32_t>>> spans_of;
  for (const Tile& tile : tiles.tiles) {
    for (int32_t row = tile.row_begin; row < tile.row_end; ++row) {
      const int32_t query = tile.query_begin + row - tile.row_begin;
      for (int32_t i = tile.span_begin; i < tile.span_end; ++i) {
        const KeySpan& span = tiles.spans[i];
        if (span.begin > query) continue;
        spans_of[row].push_back({span.begin, std::min(span.end, query + 1)});
      }
    }
  }
  return spans_of;
}

TEST(TilePlanTest, ARowHasTheSameSpansAloneAndInATile) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Step step = RandomStep(seed);
    TileShape shape = {.tile_rows = 1, .key_block = 16, .span_keys = 32, .max_spans = 3};
    const auto alone = SpansOfRows(PlanTiles(step.plan, {}, shape));
    shape.tile_rows = 7;
    EXPECT_EQ(SpansOfRows(PlanTiles(step.plan, {}, shape)), alone);
  }
}

// 6 paraphrases of 50 tokens, 15 before and 10 behind them, 39 generated ones.
TEST(TilePlanTest, FusedRowsAreAsFewSpansAsTheirKeysAllow) {
  SegmentLayout::Pieces pieces;
  pieces.prefix_length = 15;
  pieces.segment_lengths.assign(6, 50);
  pieces.suffix_length = 10;
  const SegmentLayout layout = SegmentLayout::FromPieces(pieces).value();
  for (const auto& [query, num_spans] : {std::pair{363, 3}, {4095, 32}, {4096, 22}, {99999, 32}}) {
    AttentionPlan plan;
    const RowIntervals intervals =
        RowIntervals::FromLayout(layout, query + 1, /*split_segment_columns=*/false);
    plan.intervals = intervals.RunOf(query).keys;
    plan.runs = {{.row_end = 1,
                  .query_begin = query,
                  .interval_end = static_cast<int32_t>(plan.intervals.size())}};
    const TilePlan tiles = PlanTiles(plan, {}, {5, 64, 128, 32});
    EXPECT_EQ(tiles.spans.size(), static_cast<size_t>(num_spans)) << query;
  }
}

TEST(TilePlanTest, SortingPutsMostKeysFirstAndChangesNoPair) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Step step = RandomStep(seed);
    TilePlan tiles = PlanTiles(step.plan, {}, {5, 16, 64});
    const Pairs pairs = PlannedPairs(tiles, {});
    SortLongestFirst(tiles);
    EXPECT_EQ(PlannedPairs(tiles, {}), pairs);
    int64_t most = std::numeric_limits<int64_t>::max();
    for (size_t t = 0; t < tiles.tiles.size(); ++t) {
      int64_t num_keys = 0;
      for (int32_t i = tiles.tiles[t].span_begin; i < tiles.tiles[t].span_end; ++i) {
        EXPECT_EQ(tiles.spans[i].tile, static_cast<int32_t>(t));
        num_keys += tiles.spans[i].end - tiles.spans[i].begin;
      }
      EXPECT_LE(num_keys, most);
      most = num_keys;
    }
  }
}

TEST(TilePlanTest, RowsWithoutKeysHaveATileWithoutSpans) {
  AttentionPlan plan;
  plan.intervals = {{5, 8}};  // begins after the second run's query
  plan.runs = {{.row_begin = 0, .row_end = 3}, {.row_begin = 3, .row_end = 4, .interval_end = 1}};
  const TilePlan tiles = PlanTiles(plan, {}, {2, 16, 16});
  ASSERT_EQ(tiles.tiles.size(), 3u);
  for (const Tile& tile : tiles.tiles) EXPECT_EQ(tile.span_begin, tile.span_end);
  EXPECT_TRUE(tiles.spans.empty());
  EXPECT_EQ(tiles.longest_span, 0);
}

TEST(TilePlanTest, ACausalPromptHasFullBlocksBelowTheDiagonalOnly) {
  AttentionPlan plan;
  plan.intervals = {{0, 4096}};
  plan.runs = {{.row_begin = 0, .row_end = 4096, .interval_end = 1, .windowed_end = 1}};
  const TilePlan tiles = PlanTiles(plan, {}, {64, 64, 4096});
  int64_t full_pairs = 0;
  for (const KeySpan& span : tiles.spans) full_pairs += 64 * (span.full_end - span.full_begin);
  EXPECT_EQ(CountAllowedPairs(tiles, {}), int64_t{4096} * 4097 / 2);
  // All but the 64 x 64 tile on the diagonal of each of the 64 tiles of rows.
  EXPECT_EQ(full_pairs, int64_t{64} * 64 * 64 * 63 / 2);
}

}  // namespace
}  // namespace chorus
