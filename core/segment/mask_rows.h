#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/segment/mask.h"
#include "core/segment/row_intervals.h"

namespace chorus {

// A mask compiled for one batch entry and one head: the keys of every row as ranges. The form that
// all others are made of. Its size is O(rows + ranges), whatever the number of keys; immutable.
class MaskRows {
 public:
  // Which matrix: queries [0, num_queries), keys [0, num_keys).
  struct Slice {
    int32_t num_queries = 0;
    int32_t num_keys = 0;
    int32_t batch = 0;
    int32_t head = 0;
  };
  // O(rows + ranges) for structured masks; a CustomMask inside costs a call for each pair.
  // REQUIRES: what the rules in `mask` require of the batch index.
  static MaskRows Compile(const Mask& mask, const Slice& slice);

  int32_t num_queries() const { return static_cast<int32_t>(first_range_.size()) - 1; }
  int32_t num_keys() const { return num_keys_; }

  // The keys of row `query`: ascending, none empty, no two touching. 0 <= query < num_queries().
  absl::Span<const TokenRange> KeysOf(int32_t query) const;

  bool Allows(int32_t query, int32_t key) const;  // O(log of the row's ranges)
  int64_t CountAllowed(int32_t query) const;      // keys of one row
  int64_t CountAllowed() const;                   // pairs in all
  // Rows that see nothing, as ranges of queries.
  std::vector<TokenRange> FullyMaskedRows() const;
  // Keys that any row sees, as ranges; O(rows + ranges + keys).
  std::vector<TokenRange> SeenKeys() const;

  friend bool operator==(const MaskRows&, const MaskRows&) = default;

 private:
  MaskRows() = default;

  int32_t num_keys_ = 0;
  std::vector<int64_t> first_range_ = {0};  // [num_queries + 1]: row q has [q] up to [q + 1]
  std::vector<TokenRange> ranges_;
};

// The batch entries of one mask, in one head: [batch] matrices of one shape.
struct MaskShape {
  int32_t batch = 1;
  int32_t num_queries = 0;
  int32_t num_keys = 0;
};
std::vector<MaskRows> CompileBatch(const Mask& mask, const MaskShape& shape, int32_t head = 0);

// Is this what a kernel's plain causal flag does, so that no mask need be made? True if row q sees
// exactly the keys [0, q + num_keys - num_queries]: keys before the first query are cached tokens.
bool IsPlainlyCausal(const MaskRows& rows);

}  // namespace chorus
