#include "core/segment/padding_mask.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/field_error.h"
#include "core/segment/token_ranges.h"

namespace chorus {

absl::StatusOr<PaddingMask> PaddingMask::Create(int32_t batch, int32_t length,
                                                absl::Span<const uint8_t> valid) {
  if (batch < 0 || length < 0 || int64_t{batch} * length != static_cast<int64_t>(valid.size())) {
    return FieldError(
        "padding", absl::StrCat(valid.size(), " values"),
        absl::StrCat("must be [batch, length] = [", batch, ", ", length, "], neither negative"));
  }
  PaddingMask mask;
  mask.length_ = length;
  mask.valid_.resize(batch);
  for (int32_t b = 0; b < batch; ++b) {
    const absl::Span<const uint8_t> row = valid.subspan(size_t(b) * length, length);
    for (int32_t k = 0; k < length; ++k) {
      if (row[k] != 0) AppendClipped({k, k + 1}, {0, length}, /*first=*/0, &mask.valid_[b]);
    }
  }
  return mask;
}

bool PaddingMask::Allows(const MaskRow& row, int32_t key) const {
  CHECK(row.batch < batch());
  return Contains(valid_[row.batch], key);
}

void PaddingMask::AppendKeys(const MaskRow& row, TokenRange window,
                             std::vector<TokenRange>* keys) const {
  CHECK(row.batch < batch());
  AppendClipped(valid_[row.batch], window, keys);
}

bool PaddingMask::has_padding() const {
  const std::vector<TokenRange> all = {{0, length_}};
  return length_ > 0 &&
         std::any_of(valid_.begin(), valid_.end(), [&](const auto& valid) { return valid != all; });
}

}  // namespace chorus
