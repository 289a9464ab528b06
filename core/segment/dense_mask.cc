#include "core/segment/dense_mask.h"

#include <algorithm>
#include <limits>

#include "core/base/check.h"

namespace chorus {
namespace {

constexpr uint16_t kFloat16MinusInfinity = 0xFC00;   // sign, exponent of ones, no mantissa
constexpr uint16_t kBFloat16MinusInfinity = 0xFF80;  // the upper half of float32's

template <typename Element>
std::vector<Element> Fill(absl::Span<const MaskRows> batch, Element allowed, Element masked) {
  if (batch.empty()) return {};
  const size_t num_queries = batch.front().num_queries();
  const size_t num_keys = batch.front().num_keys();
  std::vector<Element> dense(batch.size() * num_queries * num_keys, masked);
  Element* row = dense.data();
  for (const MaskRows& rows : batch) {
    CHECK(rows.num_queries() == batch.front().num_queries());
    CHECK(rows.num_keys() == batch.front().num_keys());
    for (int32_t q = 0; q < rows.num_queries(); ++q, row += num_keys) {
      for (const TokenRange& keys : rows.KeysOf(q)) {
        std::fill(row + keys.begin, row + keys.end, allowed);
      }
    }
  }
  return dense;
}

}  // namespace

std::vector<uint8_t> ToBoolean(absl::Span<const MaskRows> batch) {
  return Fill<uint8_t>(batch, 1, 0);
}

std::vector<float> ToAdditiveFloat32(absl::Span<const MaskRows> batch) {
  return Fill<float>(batch, 0.0f, -std::numeric_limits<float>::infinity());
}

std::vector<uint16_t> ToAdditiveFloat16(absl::Span<const MaskRows> batch) {
  return Fill<uint16_t>(batch, 0, kFloat16MinusInfinity);
}

std::vector<uint16_t> ToAdditiveBFloat16(absl::Span<const MaskRows> batch) {
  return Fill<uint16_t>(batch, 0, kBFloat16MinusInfinity);
}

}  // namespace chorus
