#pragma once

#include <string>

#include "client/mask_view.h"

namespace chorus {

// What surrounds the picture: the segments over it; under it lengths and counts, the whole matrix's
// and the shown one's, and the four representative queries. A real prompt's texts are cut to
// `width` columns (0: to 60 bytes).
std::string SegmentTable(const MaskView& view, int width);
std::string StatisticsText(const MaskView& view);
std::string QueriesText(const MaskView& view);

}  // namespace chorus
