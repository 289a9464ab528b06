#include "core/kernels/tile_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/check.h"

namespace chorus {
namespace {

int32_t RoundDown(int32_t value, int32_t step) { return value - value % step; }

int64_t NumKeys(const TilePlan& plan, const Tile& tile) {
  int64_t num_keys = 0;
  for (int32_t i = tile.span_begin; i < tile.span_end; ++i) {
    num_keys += plan.spans[i].end - plan.spans[i].begin;
  }
  return num_keys;
}

class Planner {
 public:
  Planner(const AttentionPlan& plan, const AttentionWindow& window, const TileShape& shape)
      : plan_(plan), window_(window), shape_(shape) {}

  TilePlan Plan() {
    for (const AttentionRun& run : plan_.runs) {
      for (int32_t row = run.row_begin; row < run.row_end;) {
        const int32_t row_end = std::min(RowEnd(run, row), run.row_end);
        AddTile(run, row, row_end);
        row = row_end;
      }
    }
    return std::move(tiles_);
  }

 private:
  int32_t SpanKeysOf(int32_t query) const {
    if (shape_.max_spans == 0) return shape_.span_keys;
    const int32_t num_blocks = query / (shape_.key_block * shape_.max_spans) + 1;
    return std::max(shape_.span_keys, num_blocks * shape_.key_block);
  }

  // Rows of a tile have spans of one length.
  int32_t RowEnd(const AttentionRun& run, int32_t row) const {
    if (shape_.max_spans == 0) return row + shape_.tile_rows;
    const int32_t query = run.query_begin + row - run.row_begin;
    return row + std::min(shape_.tile_rows, SpanKeysOf(query) * shape_.max_spans - query);
  }

  void AddTile(const AttentionRun& run, int32_t row_begin, int32_t row_end) {
    Tile tile;
    tile.row_begin = row_begin;
    tile.row_end = row_end;
    tile.query_begin = run.query_begin + (row_begin - run.row_begin);
    tile.position_begin = run.position_begin + (row_begin - run.row_begin);
    tile.table_begin = run.table_begin;
    tile.scaling = run.scaling;
    tile.span_begin = static_cast<int32_t>(tiles_.spans.size());
    const bool is_full = window_.is_full();
    const int32_t interval_end = is_full ? run.interval_end : run.windowed_end;
    for (int32_t i = is_full ? run.interval_begin : run.windowed_begin; i < interval_end; ++i) {
      AddSpans(tile, plan_.intervals[i]);
    }
    tile.span_end = static_cast<int32_t>(tiles_.spans.size());
    tiles_.tiles.push_back(tile);
  }

  // Spans stand on a grid from the interval's begin, and so do the blocks in them. Under a window
  // they begin with the first block that the tile's first row sees: later rows see none before it.
  void AddSpans(const Tile& tile, const KeyInterval& interval) {
    const int32_t last = tile.row_end - 1 - tile.row_begin;
    const int32_t end = std::min(interval.end, tile.query_begin + last + 1);
    const int32_t span_keys = SpanKeysOf(tile.query_begin);
    int32_t begin = interval.begin;
    int32_t grid_end = begin + span_keys;
    int32_t seen_by_all = begin;  // the first key that the last row's window allows
    if (!window_.is_full()) {
      const int32_t first = window_.FirstPosition(tile.position_begin) - interval.position_shift;
      const int32_t hidden = std::max(0, first - begin);
      grid_end += RoundDown(hidden, span_keys);
      begin += RoundDown(hidden, shape_.key_block);
      seen_by_all = window_.FirstPosition(tile.position_begin + last) - interval.position_shift;
    }
    for (; begin < end; begin = grid_end, grid_end += span_keys) {
      KeySpan span;
      span.begin = begin;
      span.end = std::min(grid_end, end);
      span.tile = static_cast<int32_t>(tiles_.tiles.size());
      span.position_shift = interval.position_shift;
      span.is_scaled = tile.scaling >= 0 && interval.is_segment ? 1 : 0;
      SetFullBlocks(tile, seen_by_all, span);
      tiles_.spans.push_back(span);
      tiles_.longest_span = std::max(tiles_.longest_span, span.end - span.begin);
    }
  }

  void SetFullBlocks(const Tile& tile, int32_t seen_by_all, KeySpan& span) const {
    const int32_t hidden = std::max(0, seen_by_all - span.begin);
    const int32_t first = RoundDown(hidden + shape_.key_block - 1, shape_.key_block);
    const int32_t visible = std::min(span.end, tile.query_begin + 1) - span.begin;
    const int32_t last = RoundDown(std::max(0, visible), shape_.key_block);
    span.full_begin = span.full_end = span.begin;
    if (first < last) {
      span.full_begin += first;
      span.full_end += last;
    }
  }

  const AttentionPlan& plan_;
  const AttentionWindow& window_;
  const TileShape shape_;
  TilePlan tiles_;
};

}  // namespace

TilePlan PlanTiles(const AttentionPlan& plan, const AttentionWindow& window,
                   const TileShape& shape) {
  CHECK(shape.tile_rows >= 1 && shape.key_block >= 1);
  CHECK(shape.span_keys >= shape.key_block && shape.span_keys % shape.key_block == 0);
  CHECK(shape.max_spans >= 0);
  return Planner(plan, window, shape).Plan();
}

void SortLongestFirst(TilePlan& plan) {
  std::vector<int64_t> num_keys;
  for (const Tile& tile : plan.tiles) num_keys.push_back(NumKeys(plan, tile));
  std::vector<int32_t> order(plan.tiles.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return num_keys[a] > num_keys[b]; });
  std::vector<Tile> sorted;
  for (const int32_t from : order) {
    const Tile& tile = plan.tiles[from];
    for (int32_t i = tile.span_begin; i < tile.span_end; ++i) {
      plan.spans[i].tile = static_cast<int32_t>(sorted.size());
    }
    sorted.push_back(tile);
  }
  plan.tiles = std::move(sorted);
}

int64_t CountAllowedPairs(const TilePlan& tiles, const AttentionWindow& window) {
  int64_t pairs = 0;
  for (const KeySpan& span : tiles.spans) {
    const Tile& tile = tiles.tiles[span.tile];
    for (int32_t i = 0; i < tile.row_end - tile.row_begin; ++i) {
      const int32_t first =
          window.is_full() ? span.begin
                           : window.FirstPosition(tile.position_begin + i) - span.position_shift;
      const int32_t begin = std::max(span.begin, first);
      pairs += std::max(0, std::min(span.end, tile.query_begin + i + 1) - begin);
    }
  }
  return pairs;
}

}  // namespace chorus
