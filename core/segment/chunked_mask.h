#pragma once

#include "core/segment/mask.h"

namespace chorus {

// A query sees the keys of its own chunk of `chunk_length` tokens: the base is bidirectional, the
// causal form (Llama 4) is AndMask({CausalMask(), ChunkedMask(c)}).
class ChunkedMask {
 public:
  // REQUIRES: chunk_length >= 1.
  explicit ChunkedMask(int32_t chunk_length);

  bool Allows(const MaskRow& row, int32_t key) const {
    return row.query / chunk_length_ == key / chunk_length_;
  }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  int32_t chunk_length_;
};

}  // namespace chorus
