#include "core/segment/mask_rows.h"

#include "core/base/check.h"
#include "core/segment/token_ranges.h"

namespace chorus {

MaskRows MaskRows::Compile(const Mask& mask, const Slice& slice) {
  CHECK(slice.num_queries >= 0 && slice.num_keys >= 0);
  MaskRows rows;
  rows.num_keys_ = slice.num_keys;
  rows.first_range_.reserve(int64_t{slice.num_queries} + 1);
  for (int32_t q = 0; q < slice.num_queries; ++q) {
    mask.AppendKeys({slice.batch, slice.head, q}, {0, slice.num_keys}, &rows.ranges_);
    rows.first_range_.push_back(static_cast<int64_t>(rows.ranges_.size()));
  }
  return rows;
}

absl::Span<const TokenRange> MaskRows::KeysOf(int32_t query) const {
  CHECK(query >= 0 && query < num_queries());
  return absl::MakeConstSpan(ranges_).subspan(first_range_[query],
                                              first_range_[query + 1] - first_range_[query]);
}

bool MaskRows::Allows(int32_t query, int32_t key) const { return Contains(KeysOf(query), key); }

int64_t MaskRows::CountAllowed(int32_t query) const {
  int64_t count = 0;
  for (const TokenRange& keys : KeysOf(query)) count += keys.length();
  return count;
}

int64_t MaskRows::CountAllowed() const {
  int64_t count = 0;
  for (const TokenRange& keys : ranges_) count += keys.length();
  return count;
}

std::vector<TokenRange> MaskRows::FullyMaskedRows() const {
  std::vector<TokenRange> masked;
  for (int32_t q = 0; q < num_queries(); ++q) {
    if (KeysOf(q).empty()) AppendClipped({q, q + 1}, {0, num_queries()}, /*first=*/0, &masked);
  }
  return masked;
}

std::vector<TokenRange> MaskRows::SeenKeys() const {
  std::vector<int64_t> change(int64_t{num_keys_} + 1, 0);
  for (const TokenRange& keys : ranges_) {
    ++change[keys.begin];
    --change[keys.end];
  }
  std::vector<TokenRange> seen;
  int64_t num_queries = 0;
  for (int32_t k = 0; k < num_keys_; ++k) {
    num_queries += change[k];
    if (num_queries > 0) AppendClipped({k, k + 1}, {0, num_keys_}, /*first=*/0, &seen);
  }
  return seen;
}

std::vector<MaskRows> CompileBatch(const Mask& mask, const MaskShape& shape, int32_t head) {
  std::vector<MaskRows> batch;
  for (int32_t b = 0; b < shape.batch; ++b) {
    batch.push_back(MaskRows::Compile(
        mask,
        {.num_queries = shape.num_queries, .num_keys = shape.num_keys, .batch = b, .head = head}));
  }
  return batch;
}

bool IsPlainlyCausal(const MaskRows& rows) {
  const int32_t num_cached = rows.num_keys() - rows.num_queries();
  if (num_cached < 0) return false;
  for (int32_t q = 0; q < rows.num_queries(); ++q) {
    const absl::Span<const TokenRange> keys = rows.KeysOf(q);
    if (keys.size() != 1 || keys.front() != TokenRange{0, num_cached + q + 1}) return false;
  }
  return true;
}

}  // namespace chorus
