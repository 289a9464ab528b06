#pragma once

#include <cstdint>
#include <vector>

#include "core/segment/attention_plan.h"
#include "core/segment/attention_window.h"

namespace chorus {

// How attention work is cut. A row's result must not depend on it but by blocks and spans: they are
// counted from the begin of an interval, and their length depends on the row alone, so the result
// is the same whatever shares its tile.
struct TileShape {
  int32_t tile_rows = 0;  // rows of one tile, at most
  int32_t key_block = 0;  // keys that are made ready for use at once
  int32_t span_keys = 0;  // keys of one span, at most; a multiple of key_block
  // If not 0: no interval has more spans. The row of token q has spans of (q + 1) / max_spans keys,
  // rounded up to whole blocks, where that is more than span_keys.
  int32_t max_spans = 0;
};

// Keys [begin, end) of one interval, which some row of a tile sees. Blocks of key_block keys are
// counted from `begin`. Every row sees all keys of the blocks in [full_begin, full_end): no test by
// element there. Elsewhere row q sees key k if k <= q and its window allows it.
struct KeySpan {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t full_begin = 0;  // begin <= full_begin <= full_end <= end; none is full: full_begin ==
  int32_t full_end = 0;    // full_end == begin
  int32_t tile = 0;        // whose it is
  int32_t position_shift = 0;  // the RoPE position of key k is k + position_shift; under a window
  int32_t is_scaled = 0;       // 1: segment columns under a SegmentScaling, a softmax of their own
};

// Rows [row_begin, row_end) of a run and the keys that they see. What one kernel task, or one
// thread block, works on for one kv head.
struct Tile {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t query_begin = 0;     // logical index of row_begin's token in its sequence
  int32_t position_begin = 0;  // its RoPE position
  int32_t table_begin = 0;     // key k lies in slot slot_table[table_begin + k]
  int32_t span_begin = 0;      // its spans: [span_begin, span_end), ascending and disjoint; none:
  int32_t span_end = 0;        // the rows attend to nothing
  int32_t scaling = -1;        // as AttentionRun's
};

// The attention work of one step for the layers of one window. Planned once a step and used by all
// of them; flat arrays of 32-bit integers, so that a device reads the same structs.
struct TilePlan {
  std::vector<Tile> tiles;  // every row of the step is in exactly one
  std::vector<KeySpan> spans;
  int32_t longest_span = 0;  // keys
};

// Together the spans hold exactly the pairs (row, key) that plan and window allow, each once.
// Takes O(tiles + spans) time. REQUIRES: a valid shape.
TilePlan PlanTiles(const AttentionPlan& plan, const AttentionWindow& window,
                   const TileShape& shape);

// Tiles with most keys first, so that none of them begins when all others have ended; those with as
// many stay in order.
void SortLongestFirst(TilePlan& plan);

// Pairs (row, key) that the spans hold: 4 * head_dim * num_heads FLOPs each in one layer.
int64_t CountAllowedPairs(const TilePlan& tiles, const AttentionWindow& window);

}  // namespace chorus
