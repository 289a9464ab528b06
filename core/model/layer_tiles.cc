#include "core/model/layer_tiles.h"

#include <algorithm>

namespace chorus {

LayerTiles::LayerTiles(const AttentionPlan& plan, const AttentionShape& shape,
                       const ModelConfig& config) {
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const AttentionWindow window = config.WindowOf(layer);
    const auto known = std::find_if(plans_.begin(), plans_.end(), [&](const WindowTiles& planned) {
      return planned.window == window;
    });
    index_.push_back(static_cast<int32_t>(known - plans_.begin()));
    if (known == plans_.end()) plans_.push_back({window, PlanCpuTiles(plan, shape, window)});
  }
}

}  // namespace chorus
