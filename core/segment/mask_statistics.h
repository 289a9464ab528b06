#pragma once

#include <cstdint>
#include <vector>

#include "core/segment/block_mask.h"
#include "core/segment/mask_rows.h"

namespace chorus {

// What a mask amounts to.
struct MaskStatistics {
  int64_t allowed = 0;  // pairs
  int64_t total = 0;    // queries * keys
  std::vector<TokenRange> fully_masked_rows;
  BlockMask::TileSize tile_size;
  int64_t tiles = 0;
  int64_t tiles_skipped = 0;  // empty ones
  int64_t tiles_full = 0;     // those that need no mask inside

  double ratio() const;  // allowed / total, in [0, 1]; 0 for an empty matrix
};

MaskStatistics Summarise(const MaskRows& rows, const BlockMask::TileSize& tile_size);

}  // namespace chorus
