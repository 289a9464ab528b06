#pragma once

#include <cstdint>

#include "core/model/model_config.h"

namespace chorus {

// Writes the rotations of positions [begin, end): cosine and sine, each [end - begin, head_dim /
// 2], computed in double.
void FillRopeTables(const ModelConfig& config, int64_t begin, int64_t end, float* cosine,
                    float* sine);

}  // namespace chorus
