#pragma once

#include "absl/status/statusor.h"

#include "core/model/device.h"

namespace chorus {

// Whether every row of a product has the same bits for all numbers of rows: tried with random rows,
// 1 to 2,048 of them (600 of answers) or as many as 64 MiB of results hold, and wherever a row
// stands among them. Of `product` kind, type, weight, sizes and the output's type are read. Tens of
// milliseconds. RESOURCE_EXHAUSTED: no memory for rows and results.
absl::StatusOr<bool> HasRowInvariantBits(Device& device, DeviceStream& stream,
                                         const DeviceLinearArgs& product);

}  // namespace chorus
