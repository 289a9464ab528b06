#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "chorus/v1/inference.pb.h"

namespace chorus {

// What `chorus score` prints for one method: a line for each continuation, in the response's order.
// `texts`: of the continuations. REQUIRES: a text for each score.
std::string ScoreReport(const v1::ScoreResponse& response, const std::vector<std::string>& texts);

// A line for each token of each continuation; `spell`: the text of a token id.
std::string TokenScoreReport(const v1::ScoreResponse& response,
                             const std::vector<std::string>& texts,
                             const std::function<std::string(int32_t)>& spell);

}  // namespace chorus
