#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/segment/mask_rows.h"

namespace chorus {

// Dense forms of a batch of compiled masks, for tests, pictures and comparators: they take
// batch * queries * keys elements. All are [batch, 1, queries, keys], row-major.
// REQUIRES of each: the batch entries have one shape.

// 1 where the query may attend to the key, else 0: what SDPA takes.
std::vector<uint8_t> ToBoolean(absl::Span<const MaskRows> batch);

// 0 where it may, minus infinity where not: what is added to attention scores before the softmax
// (eager attention). A fully masked row is minus infinity throughout; its softmax is not a number,
// and a caller that has such rows must make their output zero, as Chorus' kernels do.
std::vector<float> ToAdditiveFloat32(absl::Span<const MaskRows> batch);
std::vector<uint16_t> ToAdditiveFloat16(absl::Span<const MaskRows> batch);   // IEEE binary16 bits
std::vector<uint16_t> ToAdditiveBFloat16(absl::Span<const MaskRows> batch);  // bfloat16 bits

}  // namespace chorus
