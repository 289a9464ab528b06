#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels/segment_attention.h"
#include "core/kernels/tile_plan.h"
#include "core/model/model_config.h"

namespace chorus {

// The tile plans of one step: one for every window that a layer has, planned once.
class LayerTiles {
 public:
  LayerTiles(const AttentionPlan& plan, const AttentionShape& shape, const ModelConfig& config);

  const TilePlan& Of(int32_t layer) const { return plans_[index_[layer]].tiles; }

 private:
  struct WindowTiles {
    AttentionWindow window;
    TilePlan tiles;
  };
  std::vector<WindowTiles> plans_;
  std::vector<int32_t> index_;  // [num_layers], into plans_
};

}  // namespace chorus
