#pragma once

#include <nlohmann/json.hpp>

#include "client/mask_view.h"

namespace chorus {

// The object of `chorus mask --json`; its help lists the keys, which are all always there.
nlohmann::ordered_json MaskJson(const MaskView& view);

}  // namespace chorus
