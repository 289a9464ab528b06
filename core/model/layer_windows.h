#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "core/model/config_fields.h"
#include "core/segment/attention_window.h"

namespace chorus {

// Models of Llama's architecture that differ in biases, windows and defaults only.
enum class ModelFamily { kLlama, kMistral, kMinistral, kQwen2 };

// The window of every layer, [num_layers], as Transformers 5 understands the file; empty if all see
// everything. A window or chunk of max_positions and more never hides a key and counts as full.
//
//   layer_types       if given, one of "full_attention", "sliding_attention" and
//                     "chunked_attention" a layer, in every family; else
//   Mistral,          every layer slides by sliding_window (4,096 where the field is absent; null:
//   Ministral         none does)
//   Qwen2             with use_sliding_window, layers from max_window_layers on slide
//   Llama             every layer is full: sliding_window alone says nothing, as in Transformers
//
// INVALID_ARGUMENT, naming file and field: another kind of layer, not one entry a layer, a kind
// whose sliding_window or attention_chunk_size is missing or out of range.
absl::StatusOr<std::vector<AttentionWindow>> ReadLayerWindows(const ConfigFields& fields,
                                                              ModelFamily family,
                                                              int32_t num_layers,
                                                              int32_t max_positions);

}  // namespace chorus
