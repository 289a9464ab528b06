#include "core/model/cuda/settle_algorithms.h"

#include <cstddef>
#include <optional>

#include "absl/strings/str_cat.h"

#include "core/model/linear_check.h"

namespace chorus {
namespace {

constexpr size_t kMaxTried = 8;  // some 10 ms each

}  // namespace

absl::StatusOr<bool> SettleAlgorithm(Device& device, DeviceStream& stream,
                                     LinearAlgorithms& algorithms,
                                     const DeviceLinearArgs& product) {
  const LinearShape shape = ShapeOf(product);
  std::optional<size_t> best_that_runs;
  absl::Status error;
  for (size_t i = 0; i < kMaxTried; ++i) {
    // A shape that nobody has asked for yet begins with its best.
    if (!algorithms.Take(shape, i) && i > 0) break;
    const absl::StatusOr<bool> is_invariant = HasRowInvariantBits(device, stream, product);
    if (is_invariant.ok()) {
      if (*is_invariant) return true;
      if (!best_that_runs.has_value()) best_that_runs = i;
      continue;
    }
    error = is_invariant.status();
    if (!absl::IsInternal(error)) return error;
  }
  if (best_that_runs.has_value()) {
    algorithms.Take(shape, *best_that_runs);
    return false;
  }
  return absl::Status(error.code(), absl::StrCat("the matrix product of ", product.out_size, " by ",
                                                 product.in_size, ": ", error.message()));
}

}  // namespace chorus
