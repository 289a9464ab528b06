#pragma once

#include "core/segment/mask.h"

namespace chorus {

// What all operands allow. Without operands: everything. Put the narrowest first: each is asked
// only about the keys between the first and the last that those before it allow.
class AndMask {
 public:
  explicit AndMask(std::vector<Mask> operands) : operands_(std::move(operands)) {}

  bool Allows(const MaskRow& row, int32_t key) const;
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  std::vector<Mask> operands_;
};

// What any operand allows. Without operands: nothing.
class OrMask {
 public:
  explicit OrMask(std::vector<Mask> operands) : operands_(std::move(operands)) {}

  bool Allows(const MaskRow& row, int32_t key) const;
  void AppendKeys(const MaskRow& row, TokenRange window, std::vector<TokenRange>* keys) const;

 private:
  std::vector<Mask> operands_;
};

}  // namespace chorus
