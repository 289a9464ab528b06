#include "core/segment/packed_mask.h"

#include <unordered_map>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "core/segment/token_ranges.h"

namespace chorus {

absl::StatusOr<PackedMask> PackedMask::FromSequenceIds(int32_t batch, int32_t length,
                                                       absl::Span<const int32_t> sequence_ids) {
  if (batch < 0 || length < 0 ||
      int64_t{batch} * length != static_cast<int64_t>(sequence_ids.size())) {
    return FieldError(
        "sequence_ids", absl::StrCat(sequence_ids.size(), " values"),
        absl::StrCat("must be [batch, length] = [", batch, ", ", length, "], neither negative"));
  }
  PackedMask mask;
  mask.batch_ = batch;
  mask.length_ = length;
  mask.sequence_of_.reserve(sequence_ids.size());
  for (int32_t b = 0; b < batch; ++b) {
    std::unordered_map<int32_t, int32_t> index_of;
    for (int32_t i = 0; i < length; ++i) {
      const int32_t id = sequence_ids[size_t(b) * length + i];
      const auto [found, is_new] =
          index_of.try_emplace(id, static_cast<int32_t>(mask.tokens_of_.size()));
      if (is_new) mask.tokens_of_.emplace_back();
      mask.sequence_of_.push_back(found->second);
      AppendClipped({i, i + 1}, {0, length}, /*first=*/0, &mask.tokens_of_[found->second]);
    }
  }
  return mask;
}

bool PackedMask::Allows(const MaskRow& row, int32_t key) const {
  CHECK(row.batch < batch_);
  return row.query < length_ && key < length_ &&
         SequenceOf(row.batch, row.query) == SequenceOf(row.batch, key);
}

void PackedMask::AppendKeys(const MaskRow& row, TokenRange window,
                            std::vector<TokenRange>* keys) const {
  CHECK(row.batch < batch_);
  if (row.query >= length_) return;
  AppendClipped(tokens_of_[SequenceOf(row.batch, row.query)], window, keys);
}

}  // namespace chorus
