#pragma once

#include <string>

#include "client/mask_view.h"

namespace chorus {

struct PictureStyle {
  int32_t width = 0;  // columns to fit in; 0: no limit
  bool is_ascii = false;
  bool has_colours = false;
};

// The shown matrix as lines of text: a row for each query, a column for each key, and under it what
// the marks mean. It fits style.width. Where column numbers side by side would not, they are
// written downwards; then without space between columns, over every other one; then the columns are
// split into blocks. No column or row is ever left out, and no two numbers touch.
std::string DrawMask(const MaskView& view, const PictureStyle& style);

}  // namespace chorus
