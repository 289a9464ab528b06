#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/segment/mask.h"

namespace chorus {

// Keys that are padding are seen by no query. Queries are not looked at.
class PaddingMask {
 public:
  // `valid` is [batch, length], row-major: 0 for padding. Keys at or past `length` are padding.
  // InvalidArgument if its size is not batch * length, or one of them is negative.
  static absl::StatusOr<PaddingMask> Create(int32_t batch, int32_t length,
                                            absl::Span<const uint8_t> valid);

  // REQUIRES: row.batch < batch().
  bool Allows(const MaskRow& row, int32_t key) const;
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

  int32_t batch() const { return static_cast<int32_t>(valid_.size()); }
  int32_t length() const { return length_; }
  bool has_padding() const;

 private:
  PaddingMask() = default;

  int32_t length_ = 0;
  std::vector<std::vector<TokenRange>> valid_;  // by batch entry
};

}  // namespace chorus
