#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/mask_subject.h"
#include "core/segment/mask_rows.h"
#include "core/segment/mask_statistics.h"
#include "core/segment/row_intervals.h"
#include "core/segment/sampled_positions.h"

namespace chorus {

// All that is said about a mask, as numbers: what the text and the JSON are written from.
struct MaskView {
  const MaskSubject& subject;  // outlives the view
  MaskRows rows;
  RowIntervals row_intervals;
  MaskStatistics statistics;  // of the whole matrix
  std::vector<RepresentativeQuery> queries;

  bool is_full = false;
  std::vector<int32_t> positions;   // shown as rows and as columns
  std::vector<std::string> labels;  // of each: "S1", "E1", "G0" or empty
  int64_t shown_allowed = 0;        // pairs of the shown matrix

  int64_t shown_total() const { return static_cast<int64_t>(positions.size() * positions.size()); }
  // Positions shown, of all.
  double sampling_rate() const;
};

// INVALID_ARGUMENT names the flag if more than kMaxShownPositions would be shown.
absl::StatusOr<MaskView> MakeMaskView(const MaskSubject& subject, const MaskOptions& options);

}  // namespace chorus
