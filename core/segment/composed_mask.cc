#include "core/segment/composed_mask.h"

#include <algorithm>

#include "core/segment/token_ranges.h"

namespace chorus {

bool AndMask::Allows(const MaskRow& row, int32_t key) const {
  return std::all_of(operands_.begin(), operands_.end(),
                     [&](const Mask& operand) { return operand.Allows(row, key); });
}

void AndMask::AppendKeys(const MaskRow& row, TokenRange window,
                         std::vector<TokenRange>* keys) const {
  if (window.length() == 0) return;
  std::vector<TokenRange> common = {window};
  for (const Mask& operand : operands_) {
    std::vector<TokenRange> allowed;
    operand.AppendKeys(row, {common.front().begin, common.back().end}, &allowed);
    common = common.size() == 1 ? std::move(allowed) : Intersect(common, allowed);
    if (common.empty()) return;
  }
  keys->insert(keys->end(), common.begin(), common.end());
}

bool OrMask::Allows(const MaskRow& row, int32_t key) const {
  return std::any_of(operands_.begin(), operands_.end(),
                     [&](const Mask& operand) { return operand.Allows(row, key); });
}

void OrMask::AppendKeys(const MaskRow& row, TokenRange window,
                        std::vector<TokenRange>* keys) const {
  std::vector<TokenRange> united;
  for (const Mask& operand : operands_) {
    std::vector<TokenRange> allowed;
    operand.AppendKeys(row, window, &allowed);
    united = united.empty() ? std::move(allowed) : Unite(united, allowed);
  }
  keys->insert(keys->end(), united.begin(), united.end());
}

}  // namespace chorus
