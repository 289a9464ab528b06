#include "core/segment/mask_statistics.h"

namespace chorus {

double MaskStatistics::ratio() const {
  return total == 0 ? 0.0 : static_cast<double>(allowed) / static_cast<double>(total);
}

MaskStatistics Summarise(const MaskRows& rows, const BlockMask::TileSize& tile_size) {
  const BlockMask blocks = BlockMask::FromRows(rows, tile_size);
  return {.allowed = rows.CountAllowed(),
          .total = int64_t{rows.num_queries()} * rows.num_keys(),
          .fully_masked_rows = rows.FullyMaskedRows(),
          .tile_size = tile_size,
          .tiles = blocks.num_tiles(),
          .tiles_skipped = blocks.Count(BlockMask::Tile::kEmpty),
          .tiles_full = blocks.Count(BlockMask::Tile::kFull)};
}

}  // namespace chorus
