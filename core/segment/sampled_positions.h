#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "core/segment/segment_layout.h"

namespace chorus {

struct PositionSampling {
  int32_t max_positions = 30;    // >= kMinSampledPositions
  bool includes_prefix = false;  // the prefix's first and last token count as boundaries too
};

// Room for the first and the last segment's boundaries and the first generated token.
inline constexpr int32_t kMinSampledPositions = 5;

// Which tokens of a long sequence a picture shows, ascending: at most max_positions of [0, length),
// chosen by priority.
//
//   1. every segment's first and last token           3. segments longer than 4: their thirds
//   2. original_length - 1 and original_length        4. the next four generated tokens
//                                                      5. the last token
//
// then, while there is room, the middle of the largest gap (the first of equal ones). Where there
// is too much, the lowest priority goes first, and within it the latest token; but original_length
// stays if it is in the sequence. Where segment boundaries alone are too many, whole segments are
// left out evenly, never the first or the last.
//
// `length` >= layout.original_length() counts generated tokens. InvalidArgument for fewer than
// kMinSampledPositions. O(segments log segments + positions log positions).
absl::StatusOr<std::vector<int32_t>> SamplePositions(const SegmentLayout& layout, int32_t length,
                                                     const PositionSampling& sampling);

// "S1" at the first segment's first token, "E1" at its last, "G0" at original_length, else empty. A
// segment of one token is "S1".
std::string PositionLabel(const SegmentLayout& layout, int32_t position);

// Four queries that show what a mask does: a token of the first segment and one of the last (their
// sixth, or the last they have), original_length, and the last token. Those that do not exist are
// left out.
struct RepresentativeQuery {
  std::string name;  // "first segment", "last segment", "first generated", "last"
  int32_t query = 0;
};
std::vector<RepresentativeQuery> RepresentativeQueries(const SegmentLayout& layout, int32_t length);

}  // namespace chorus
