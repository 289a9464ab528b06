#pragma once

#include <string>

#include "chorus/v1/inference.pb.h"

namespace chorus {

// What `chorus explain` prints of a response: answer, layout, mask, attention by layer, sinks, mass
// by unit. REQUIRES: IsWellFormed(response).
std::string ExplainReport(const v1::ExplainResponse& response);

}  // namespace chorus
