#pragma once

#include "core/segment/mask.h"

namespace chorus {

// Causal, and no further back than the window: key <= query and query - key < window. So a query
// sees `window` keys, itself among them (Mistral).
class SlidingWindowMask {
 public:
  // REQUIRES: window >= 1.
  explicit SlidingWindowMask(int32_t window);

  bool Allows(const MaskRow& row, int32_t key) const {
    return key <= row.query && row.query - key < window_;
  }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  int32_t window_;
};

}  // namespace chorus
