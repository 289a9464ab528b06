#pragma once

#include "core/segment/mask.h"

namespace chorus {

// Every query sees the keys of the shared prefix, and no others: one operand of an OrMask.
class SharedPrefixMask {
 public:
  // REQUIRES: prefix_length >= 0.
  explicit SharedPrefixMask(int32_t prefix_length);

  bool Allows(const MaskRow& row, int32_t key) const { return key < prefix_length_; }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  int32_t prefix_length_;
};

}  // namespace chorus
