#pragma once

#include <nlohmann/json.hpp>

#include "chorus/v1/inference.pb.h"

namespace chorus {

// What `chorus explain --json` prints: the response with the contract's names, enum values as the
// command's flags spell them, NaN as null, and the statistics of each layer beside it; the keys are
// listed in the help of `chorus explain`. REQUIRES: IsWellFormed(response).
nlohmann::ordered_json ExplainJson(const v1::ExplainResponse& response);

}  // namespace chorus
