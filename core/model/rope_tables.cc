#include "core/model/rope_tables.h"

#include <cmath>
#include <vector>

namespace chorus {

void FillRopeTables(const ModelConfig& config, int64_t begin, int64_t end, float* cosine,
                    float* sine) {
  const std::vector<double> frequencies = RopeFrequencies(config);
  for (int64_t position = begin; position < end; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      *cosine++ = static_cast<float>(std::cos(angle));
      *sine++ = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace chorus
