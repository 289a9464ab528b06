#pragma once

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "core/segment/mask.h"

namespace chorus {

// Several sequences packed into one row of tokens: a query sees the keys of its own sequence,
// before and after it (the causal form is AndMask({CausalMask(), packed})).
class PackedMask {
 public:
  // `sequence_ids` is [batch, length], row-major: which sequence each token belongs to; any
  // numbers, in any order. Tokens at or past `length` belong to none, and neither see nor are seen.
  // InvalidArgument if its size is not batch * length, or one of them is negative.
  static absl::StatusOr<PackedMask> FromSequenceIds(int32_t batch, int32_t length,
                                                    absl::Span<const int32_t> sequence_ids);

  // REQUIRES: row.batch < batch().
  bool Allows(const MaskRow& row, int32_t key) const;
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

  int32_t batch() const { return batch_; }
  int32_t length() const { return length_; }

 private:
  PackedMask() = default;

  int32_t SequenceOf(int32_t batch, int32_t index) const {
    return sequence_of_[size_t(batch) * length_ + index];
  }

  int32_t batch_ = 0;
  int32_t length_ = 0;
  std::vector<int32_t> sequence_of_;                // [batch, length]: index into tokens_of_
  std::vector<std::vector<TokenRange>> tokens_of_;  // of each sequence of each batch entry
};

}  // namespace chorus
