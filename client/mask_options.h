#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/ask_options.h"
#include "client/flag_parser.h"
#include "core/segment/segment_layout.h"

namespace chorus {

// What `chorus mask` was told. An empty optional was not given.
struct MaskOptions {
  // A layout by name, and the numbers of the custom one.
  std::optional<std::string> scenario;
  std::optional<int32_t> prompts, tokens, separator_tokens;
  std::optional<int32_t> generated;  // also of a real prompt

  // A layout by ranges.
  std::optional<std::vector<TokenRange>> segments;
  std::optional<int32_t> original_length, length, prefix_length;

  // A real prompt.
  std::optional<std::string> model;  // a Hugging Face directory
  std::optional<std::string> question;
  AskOptions ask;  // its prompt, --preset and --separators; nothing else of it

  // What to show and how.
  bool is_full = false;
  bool is_sampled = false;
  bool is_ascii = false;
  bool json = false;
  std::optional<int32_t> max_positions;
  std::optional<int32_t> width;
  std::optional<int32_t> tile_size;
  std::optional<std::string> npy;
};

// Tokens of a layout and positions of a picture, at most.
inline constexpr int32_t kMaxMaskTokens = 1 << 20;
inline constexpr int32_t kMaxShownPositions = 2048;

// The parser of `chorus mask`; it writes into `options`, which must outlive it.
FlagParser MakeMaskParser(MaskOptions& options);

// Checks what no single flag can: layouts named twice, flags without their layout, display. Fills
// the preset. Call once, after parsing. INVALID_ARGUMENT names flag, value and limit.
absl::Status FinishMaskOptions(MaskOptions& options);

}  // namespace chorus
