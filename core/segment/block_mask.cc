#include "core/segment/block_mask.h"

#include <algorithm>

#include "core/base/check.h"

namespace chorus {
namespace {

// Pairs allowed in each tile of one row of tiles. A range of keys adds to its first and last tile
// what it has there; the whole tiles between are counted by their ends alone.
class TileRowCounts {
 public:
  TileRowCounts(int32_t num_key_tiles, int32_t keys)
      : keys_(keys), parts_(num_key_tiles, 0), whole_change_(num_key_tiles + 1, 0) {}

  void Add(const TokenRange& range) {
    const int32_t first = range.begin / keys_, last = (range.end - 1) / keys_;
    if (first == last) {
      parts_[first] += range.length();
      return;
    }
    parts_[first] += int64_t{first + 1} * keys_ - range.begin;
    parts_[last] += range.end - int64_t{last} * keys_;
    ++whole_change_[first + 1];
    --whole_change_[last];
  }

  // The counts so far, which are cleared.
  std::vector<int64_t> Take() {
    std::vector<int64_t> counts(parts_.size());
    int64_t whole = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      whole += whole_change_[i];
      counts[i] = parts_[i] + whole * keys_;
    }
    std::fill(parts_.begin(), parts_.end(), 0);
    std::fill(whole_change_.begin(), whole_change_.end(), 0);
    return counts;
  }

 private:
  int32_t keys_;
  std::vector<int64_t> parts_;
  std::vector<int64_t> whole_change_;
};

int32_t CeilDivide(int32_t value, int32_t divisor) {
  return static_cast<int32_t>((int64_t{value} + divisor - 1) / divisor);
}

}  // namespace

BlockMask BlockMask::FromRows(const MaskRows& rows, const TileSize& size) {
  CHECK(size.queries >= 1 && size.keys >= 1);
  BlockMask mask;
  mask.size_ = size;
  mask.num_query_tiles_ = CeilDivide(rows.num_queries(), size.queries);
  mask.num_key_tiles_ = CeilDivide(rows.num_keys(), size.keys);
  mask.tiles_.reserve(int64_t{mask.num_query_tiles_} * mask.num_key_tiles_);
  TileRowCounts tile_row(mask.num_key_tiles_, size.keys);
  for (int64_t begin = 0; begin < rows.num_queries(); begin += size.queries) {
    const int64_t end = std::min<int64_t>(begin + size.queries, rows.num_queries());
    for (int64_t q = begin; q < end; ++q) {
      for (const TokenRange& keys : rows.KeysOf(static_cast<int32_t>(q))) tile_row.Add(keys);
    }
    const std::vector<int64_t> counts = tile_row.Take();
    for (size_t i = 0; i < counts.size(); ++i) {
      const int64_t first_key = static_cast<int64_t>(i) * size.keys;
      const int64_t width = std::min<int64_t>(size.keys, rows.num_keys() - first_key);
      const bool is_full = counts[i] == (end - begin) * width;
      mask.tiles_.push_back(counts[i] == 0 ? Tile::kEmpty : is_full ? Tile::kFull : Tile::kPartial);
    }
  }
  return mask;
}

int64_t BlockMask::Count(Tile kind) const { return std::count(tiles_.begin(), tiles_.end(), kind); }

}  // namespace chorus
