#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "core/segment/attention_window.h"
#include "core/segment/mask.h"
#include "core/segment/mask_rows.h"
#include "core/segment/offset_mask.h"
#include "core/segment/packed_mask.h"
#include "core/segment/padding_mask.h"

namespace chorus {

// What a model's configuration says about masks.
struct MaskConfig {
  std::vector<AttentionWindow::Kind> layer_kinds;  // [layers]; a model may mix them
  std::optional<int32_t> sliding_window;           // tokens, >= 1; needed for kSliding
  std::optional<int32_t> chunk_length;             // tokens, >= 1 ("attention_chunk_size"); for kChunked
};

// One forward pass of a plain (unsegmented) sequence over a cache.
struct MaskInputs {
  int32_t batch = 1;
  int32_t num_queries = 0;
  int32_t cache_position = 0;  // the first query is this token of its sequence; the rest follow
  // Keys in the cache, the last ones before cache_position: fewer than it if the cache has
  // forgotten the oldest. The pass's keys are these and its own queries'.
  int32_t cached_length = 0;
  std::optional<PaddingMask> padding;  // [batch, cache_position + num_queries], by token
  std::optional<PackedMask> packed;    // the same shape
  std::optional<Mask> or_mask;         // added to what the layer allows, before padding; by token
  std::optional<Mask> and_mask;        // taken from it; by token
};

// The mask of all layers of one kind.
struct LayerMask {
  AttentionWindow::Kind kind = AttentionWindow::Kind::kFull;
  MaskShape shape;
  MaskOffsets offsets;       // of query 0 and key 0, for ValidateCausal and its like
  std::optional<Mask> mask;  // none: plainly causal (IsPlainlyCausal), so none is made
};

// Each of these: INVALID_ARGUMENT naming the field for a negative count, a cached_length above
// cache_position, padding or sequence ids of another shape, a window or chunk that is missing or
// below 1, more than 2^30 tokens. The mask is made without looking at single pairs.
absl::StatusOr<LayerMask> CreateCausalMask(const MaskInputs& inputs);
absl::StatusOr<LayerMask> CreateSlidingWindowCausalMask(const MaskConfig& config,
                                                        const MaskInputs& inputs);
absl::StatusOr<LayerMask> CreateChunkedCausalMask(const MaskConfig& config,
                                                  const MaskInputs& inputs);

// One mask for each kind that the model's layers have.
absl::StatusOr<std::map<AttentionWindow::Kind, LayerMask>> CreateMasksForGeneration(
    const MaskConfig& config, const MaskInputs& inputs);

}  // namespace chorus
