#include "server/devices.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace chorus {
namespace {

constexpr int32_t kMaxDeviceIndex = 63;

}  // namespace

absl::StatusOr<DeviceList> ParseDevices(const std::string& devices) {
  DeviceList list;
  if (devices == "auto") list.is_auto = true;
  if (devices == "auto" || devices == "cpu") return list;
  for (absl::string_view name : absl::StrSplit(devices, ',')) {
    const absl::string_view whole_name = name;
    int32_t index = 0;
    if (!absl::ConsumePrefix(&name, "cuda:") || !absl::SimpleAtoi(name, &index) || index < 0 ||
        index > kMaxDeviceIndex) {
      return absl::InvalidArgumentError(
          absl::StrCat("--devices=", devices,
                       " is not known: use auto, cpu, or CUDA devices by number, for instance "
                       "cuda:0,cuda:1"));
    }
    if (std::find(list.cuda.begin(), list.cuda.end(), index) != list.cuda.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--devices=", devices, " names ", whole_name,
                       " twice: --workers gives a device several workers"));
    }
    list.cuda.push_back(index);
  }
  return list;
}

}  // namespace chorus
