#pragma once

#include <cstdint>
#include <vector>

#include "core/segment/mask_rows.h"

namespace chorus {

// A mask's tiles, as block-sparse attention walks them (FlexAttention's BlockMask): empty ones are
// skipped, full ones need no mask, only partial ones look at single pairs. Derived, never a truth
// of its own. Tiles at the right and lower edge are cut by the matrix, and judged by what is inside
// it.
class BlockMask {
 public:
  enum class Tile : uint8_t { kEmpty, kPartial, kFull };
  struct TileSize {
    int32_t queries = 128;
    int32_t keys = 128;
  };

  // O(rows + ranges + tiles). REQUIRES: both sizes >= 1.
  static BlockMask FromRows(const MaskRows& rows, const TileSize& size);

  TileSize tile_size() const { return size_; }
  int32_t num_query_tiles() const { return num_query_tiles_; }
  int32_t num_key_tiles() const { return num_key_tiles_; }
  Tile At(int32_t query_tile, int32_t key_tile) const {
    return tiles_[int64_t{query_tile} * num_key_tiles_ + key_tile];
  }
  int64_t num_tiles() const { return static_cast<int64_t>(tiles_.size()); }
  int64_t Count(Tile kind) const;

 private:
  BlockMask() = default;

  TileSize size_;
  int32_t num_query_tiles_ = 0;
  int32_t num_key_tiles_ = 0;
  std::vector<Tile> tiles_;  // [query tiles, key tiles]
};

}  // namespace chorus
