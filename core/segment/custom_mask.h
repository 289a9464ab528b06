#pragma once

#include <functional>
#include <utility>

#include "core/segment/mask.h"

namespace chorus {

// Any predicate of (batch, head, query, key). It is the one rule that is walked key by key: a row
// costs a call for every key of the window. As a later operand of an AndMask it is asked only about
// keys between the first and the last that the operands before it allow.
class CustomMask {
 public:
  using Predicate = std::function<bool(const MaskRow& row, int32_t key)>;
  // `predicate` must always answer the same, and be callable from any thread.
  explicit CustomMask(Predicate predicate) : predicate_(std::move(predicate)) {}

  bool Allows(const MaskRow& row, int32_t key) const { return predicate_(row, key); }
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  Predicate predicate_;
};

}  // namespace chorus
