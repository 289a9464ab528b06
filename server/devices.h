#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace chorus {

// The devices that --devices asks for.
struct DeviceList {
  bool is_auto = false;       // every CUDA device if one can be used, else the CPU
  std::vector<int32_t> cuda;  // as listed; empty and not `is_auto`: the CPU
};

// "auto", "cpu", or CUDA devices as "cuda:0,cuda:2". INVALID_ARGUMENT for anything else and for a
// device that is listed twice.
absl::StatusOr<DeviceList> ParseDevices(const std::string& devices);

}  // namespace chorus
