#include "core/model/layer_windows.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"

namespace chorus {
namespace {

using Kind = AttentionWindow::Kind;

constexpr int32_t kMaxWindow = 1 << 30;
constexpr int32_t kMaxFullLayers = 1 << 30;
// What the configuration classes of Transformers say where a field is absent.
constexpr int32_t kDefaultWindow = 4096;
constexpr int32_t kDefaultFullLayers = 28;

// Sizes of the windows that a file speaks of; 0: none.
struct WindowSizes {
  int32_t sliding = 0;
  int32_t chunk = 0;
  bool slides = true;  // false: Qwen2 without use_sliding_window
};

absl::StatusOr<WindowSizes> ReadSizes(const ConfigFields& fields, ModelFamily family) {
  WindowSizes sizes;
  const bool has_default = family != ModelFamily::kLlama && !fields.Has("sliding_window");
  CHORUS_ASSIGN_OR_RETURN(sizes.sliding, fields.Integer("sliding_window", 1, kMaxWindow,
                                                        has_default ? kDefaultWindow : 0));
  CHORUS_ASSIGN_OR_RETURN(sizes.chunk, fields.Integer("attention_chunk_size", 1, kMaxWindow, 0));
  if (family == ModelFamily::kQwen2) {
    CHORUS_ASSIGN_OR_RETURN(sizes.slides, fields.Bool("use_sliding_window", false));
  }
  return sizes;
}

absl::StatusOr<AttentionWindow> WindowOfType(const ConfigFields& fields, const WindowSizes& sizes,
                                             const nlohmann::json& type, size_t layer) {
  const std::string field = absl::StrCat("layer_types[", layer, "]");
  if (type == "full_attention") return AttentionWindow();
  if (type == "sliding_attention") {
    if (!sizes.slides) {
      return fields.Error("use_sliding_window",
                          absl::StrCat("must be true where ", field, " is 'sliding_attention'"));
    }
    if (sizes.sliding > 0) return AttentionWindow{Kind::kSliding, sizes.sliding};
    return fields.Error("sliding_window",
                        absl::StrCat("is missing: ", field, " is 'sliding_attention'"));
  }
  if (type == "chunked_attention") {
    if (sizes.chunk > 0) return AttentionWindow{Kind::kChunked, sizes.chunk};
    return fields.Error("attention_chunk_size",
                        absl::StrCat("is missing: ", field, " is 'chunked_attention'"));
  }
  return fields.Error(field, absl::StrCat(ConfigFields::Text(type),
                                          " is not supported: only 'full_attention', "
                                          "'sliding_attention' and 'chunked_attention' are"));
}

absl::StatusOr<std::vector<AttentionWindow>> ReadTypes(const ConfigFields& fields,
                                                       const WindowSizes& sizes,
                                                       const nlohmann::json& types,
                                                       int32_t num_layers) {
  if (!types.is_array() || types.size() != static_cast<size_t>(num_layers)) {
    return fields.Error("layer_types", absl::StrCat(ConfigFields::Text(types),
                                                    " is not valid: must be a list of "
                                                    "num_hidden_layers (",
                                                    num_layers, ") names"));
  }
  std::vector<AttentionWindow> windows;
  for (const nlohmann::json& type : types) {
    CHORUS_ASSIGN_OR_RETURN(const AttentionWindow window,
                            WindowOfType(fields, sizes, type, windows.size()));
    windows.push_back(window);
  }
  return windows;
}

// Index of the first layer that slides where layer_types does not say which do; num_layers: none.
absl::StatusOr<int32_t> FirstSlidingLayer(const ConfigFields& fields, ModelFamily family,
                                          const WindowSizes& sizes, int32_t num_layers) {
  if (family == ModelFamily::kLlama || sizes.sliding == 0 || !sizes.slides) return num_layers;
  if (family != ModelFamily::kQwen2) return 0;
  CHORUS_ASSIGN_OR_RETURN(
      const int32_t num_full,
      fields.Integer("max_window_layers", 0, kMaxFullLayers, kDefaultFullLayers));
  return std::min(num_full, num_layers);
}

}  // namespace

absl::StatusOr<std::vector<AttentionWindow>> ReadLayerWindows(const ConfigFields& fields,
                                                              ModelFamily family,
                                                              int32_t num_layers,
                                                              int32_t max_positions) {
  CHORUS_ASSIGN_OR_RETURN(const WindowSizes sizes, ReadSizes(fields, family));
  std::vector<AttentionWindow> windows(num_layers);
  if (const nlohmann::json* types = fields.Find("layer_types"); types != nullptr) {
    CHORUS_ASSIGN_OR_RETURN(windows, ReadTypes(fields, sizes, *types, num_layers));
  } else {
    CHORUS_ASSIGN_OR_RETURN(const int32_t first,
                            FirstSlidingLayer(fields, family, sizes, num_layers));
    std::fill(windows.begin() + first, windows.end(),
              AttentionWindow{Kind::kSliding, sizes.sliding});
  }
  for (AttentionWindow& window : windows) {
    if (window.size >= max_positions) window = AttentionWindow();
  }
  const bool all_full = std::all_of(windows.begin(), windows.end(),
                                    [](const AttentionWindow& window) { return window.is_full(); });
  if (all_full) windows.clear();
  return windows;
}

}  // namespace chorus
