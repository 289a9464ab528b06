#include "core/segment/layer_masks.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/sliding_window_mask.h"

namespace chorus {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 30;

int64_t NumTokens(const MaskInputs& inputs) {
  return int64_t{inputs.cache_position} + inputs.num_queries;
}

// `mask` is a PaddingMask or a PackedMask.
template <typename TokenMask>
absl::Status ValidateShape(const char* field, const std::optional<TokenMask>& mask,
                           const MaskInputs& inputs) {
  if (!mask.has_value()) return absl::OkStatus();
  if (mask->batch() == inputs.batch && mask->length() == NumTokens(inputs)) return absl::OkStatus();
  return FieldError(field, absl::StrCat("[", mask->batch(), ", ", mask->length(), "]"),
                    absl::StrCat("must be [batch, cache_position + num_queries] = [", inputs.batch,
                                 ", ", NumTokens(inputs), "]"));
}

absl::Status ValidateInputs(const MaskInputs& inputs) {
  const std::pair<const char*, int32_t> counts[] = {{"batch", inputs.batch},
                                                    {"num_queries", inputs.num_queries},
                                                    {"cache_position", inputs.cache_position},
                                                    {"cached_length", inputs.cached_length}};
  for (const auto& [field, value] : counts) {
    if (value < 0) return FieldError(field, absl::StrCat(value), "must not be negative");
  }
  if (inputs.cached_length > inputs.cache_position) {
    return FieldError("cached_length", absl::StrCat(inputs.cached_length),
                      absl::StrCat("must be at most cache_position ", inputs.cache_position));
  }
  if (NumTokens(inputs) > kMaxTokens) {
    return FieldError("num_queries", absl::StrCat(inputs.num_queries),
                      absl::StrCat("with cache_position it must be at most ", kMaxTokens));
  }
  CHORUS_RETURN_IF_ERROR(ValidateShape("padding", inputs.padding, inputs));
  return ValidateShape("packed", inputs.packed, inputs);
}

absl::Status ValidateSize(const char* field, const std::optional<int32_t>& size) {
  if (!size.has_value()) return FieldError(field, "nothing", "such layers need a number >= 1");
  if (*size < 1) return FieldError(field, absl::StrCat(*size), "must be at least 1");
  return absl::OkStatus();
}

// May the mask be left out? `is_limited`: the layer's window or chunk hides a key from some query.
bool IsPlain(const MaskInputs& inputs, bool is_limited) {
  const bool has_padding = inputs.padding.has_value() && inputs.padding->has_padding();
  return !is_limited && !has_padding && !inputs.packed.has_value() && !inputs.or_mask.has_value() &&
         !inputs.and_mask.has_value();
}

// `base` allows what the layer's kind allows, by token.
LayerMask Finish(AttentionWindow::Kind kind, Mask base, bool is_limited, const MaskInputs& inputs) {
  const int32_t num_keys = inputs.cached_length + inputs.num_queries;
  LayerMask layer = {.kind = kind,
                     .shape = {inputs.batch, inputs.num_queries, num_keys},
                     .offsets = {.query = inputs.cache_position,
                                 .key = inputs.cache_position - inputs.cached_length}};
  if (IsPlain(inputs, is_limited)) return layer;
  if (inputs.packed.has_value()) base = AndMask({base, *inputs.packed});
  if (inputs.or_mask.has_value()) base = OrMask({base, *inputs.or_mask});
  if (inputs.and_mask.has_value()) base = AndMask({base, *inputs.and_mask});
  if (inputs.padding.has_value()) base = AndMask({base, *inputs.padding});
  layer.mask = OffsetMask(std::move(base), layer.offsets);
  return layer;
}

}  // namespace

absl::StatusOr<LayerMask> CreateCausalMask(const MaskInputs& inputs) {
  CHORUS_RETURN_IF_ERROR(ValidateInputs(inputs));
  return Finish(AttentionWindow::Kind::kFull, CausalMask(), /*is_limited=*/false, inputs);
}

absl::StatusOr<LayerMask> CreateSlidingWindowCausalMask(const MaskConfig& config,
                                                        const MaskInputs& inputs) {
  CHORUS_RETURN_IF_ERROR(ValidateInputs(inputs));
  CHORUS_RETURN_IF_ERROR(ValidateSize("sliding_window", config.sliding_window));
  const int32_t window = *config.sliding_window;
  // The last query stands num_keys - 1 tokens after the first key.
  const bool is_limited = int64_t{inputs.cached_length} + inputs.num_queries > window;
  return Finish(AttentionWindow::Kind::kSliding, SlidingWindowMask(window), is_limited, inputs);
}

absl::StatusOr<LayerMask> CreateChunkedCausalMask(const MaskConfig& config,
                                                  const MaskInputs& inputs) {
  CHORUS_RETURN_IF_ERROR(ValidateInputs(inputs));
  CHORUS_RETURN_IF_ERROR(ValidateSize("chunk_length", config.chunk_length));
  const int64_t chunk_length = *config.chunk_length;
  const int64_t first_key = int64_t{inputs.cache_position} - inputs.cached_length;
  const bool is_limited =
      inputs.num_queries > 0 && (NumTokens(inputs) - 1) / chunk_length != first_key / chunk_length;
  return Finish(AttentionWindow::Kind::kChunked, AndMask({CausalMask(), ChunkedMask(*config.chunk_length)}),
                is_limited, inputs);
}

absl::StatusOr<std::map<AttentionWindow::Kind, LayerMask>> CreateMasksForGeneration(
    const MaskConfig& config, const MaskInputs& inputs) {
  std::map<AttentionWindow::Kind, LayerMask> masks;
  for (const AttentionWindow::Kind kind : config.layer_kinds) {
    if (masks.contains(kind)) continue;
    absl::StatusOr<LayerMask> layer = kind == AttentionWindow::Kind::kFull ? CreateCausalMask(inputs)
                                      : kind == AttentionWindow::Kind::kSliding
                                          ? CreateSlidingWindowCausalMask(config, inputs)
                                          : CreateChunkedCausalMask(config, inputs);
    CHORUS_RETURN_IF_ERROR(layer.status());
    masks.emplace(kind, *std::move(layer));
  }
  return masks;
}

}  // namespace chorus
