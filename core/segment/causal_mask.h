#pragma once

#include "core/segment/mask.h"

namespace chorus {

// A query sees itself and every key before it.
class CausalMask {
 public:
  bool Allows(const MaskRow& row, int32_t key) const { return key <= row.query; }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;
};

}  // namespace chorus
