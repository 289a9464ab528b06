#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "chorus/v1/inference.pb.h"

namespace chorus {

// What `chorus score --json` prints for one method; its keys are listed in the help of that command.
// `texts`: of the continuations. `spell`: the text of a token id; null where the tokens' texts are
// not wanted. REQUIRES: a text for each score.
nlohmann::ordered_json ScoreJson(v1::FusionMethod method, const v1::ScoreResponse& response,
                                 const std::vector<std::string>& texts,
                                 const std::function<std::string(int32_t)>& spell);

}  // namespace chorus
