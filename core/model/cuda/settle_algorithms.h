#pragma once

#include "absl/status/statusor.h"

#include "core/model/cuda/cuda_linear.h"
#include "core/model/device.h"

namespace chorus {

// Settles on the best algorithm of a product whose rows have the same bits whatever the batch:
// cuBLASLt promises that of none, so they are tried. False: none of the best eight does, and the
// best that runs at all is in use. RESOURCE_EXHAUSTED: no memory to try; UNAVAILABLE: the device is
// lost; INTERNAL: none runs.
// REQUIRES: `stream` computes products by `algorithms`, and no graph holds one of this product.
absl::StatusOr<bool> SettleAlgorithm(Device& device, DeviceStream& stream,
                                     LinearAlgorithms& algorithms, const DeviceLinearArgs& product);

}  // namespace chorus
