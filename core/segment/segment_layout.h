#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace chorus {

// A half-open range [begin, end) of token indices of one sequence.
struct TokenRange {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t length() const { return end - begin; }
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

// How position ids run. kSequential: 0, 1, 2, ... through the whole sequence. kOverlapping: every
// segment starts at the prefix's length; a separator continues the positions of the segment before
// it; the suffix and generated tokens go on from one more than the largest position so far.
enum class PositionMode { kSequential, kOverlapping };

// kIsolated: separator tokens belong to no segment and attend to nothing. kAttached: a separator
// belongs to the segment before it.
enum class SeparatorPolicy { kIsolated, kAttached };

// Where everything stands in one sequence:
//
//   [shared prefix] segment [separator] segment [separator] ... segment | suffix, generated ...
//   0               prefix_length                                       ^ original_length
//
// Tokens before original_length that are in neither prefix nor segment are gaps (isolated
// separators). Tokens from original_length on are the suffix and, after it, generated tokens. A
// value; never changes after creation.
class SegmentLayout {
 public:
  // What a request says. Separators stand between segments only, none after the last.
  struct Pieces {
    int32_t prefix_length = 0;
    std::vector<int32_t> segment_lengths;  // each >= 1
    int32_t separator_length = 0;
    SeparatorPolicy separator_policy = SeparatorPolicy::kIsolated;
    PositionMode position_mode = PositionMode::kOverlapping;
    int32_t suffix_length = 0;
  };
  // InvalidArgument for a negative length or an empty segment, or more than 2^30 tokens.
  static absl::StatusOr<SegmentLayout> FromPieces(const Pieces& pieces);

  // Any layout: segments in order, not overlapping, within [prefix_length, original_length);
  // 0 <= prefix_length <= original_length <= length. `length` counts prefix, segments, gaps and
  // suffix. InvalidArgument names what is wrong. A gap's position continues the token before it.
  static absl::StatusOr<SegmentLayout> FromRanges(int32_t prefix_length,
                                                  std::vector<TokenRange> segments,
                                                  int32_t original_length, int32_t length,
                                                  PositionMode position_mode);

  int32_t prefix_length() const { return prefix_length_; }
  int32_t original_length() const { return original_length_; }
  int32_t length() const { return static_cast<int32_t>(positions_.size()); }  // prompt tokens
  PositionMode position_mode() const { return position_mode_; }

  // Ranges of owned tokens in order; an attached separator is inside its segment's range.
  const std::vector<TokenRange>& segments() const { return segments_; }
  // Index of each segment's last own token (an attached separator is not one): what FUSE_FIRST reads.
  const std::vector<int32_t>& last_own_tokens() const { return last_own_tokens_; }

  // Index of the segment that owns token `index`, or -1 (prefix, gap, suffix, generated).
  int32_t SegmentOf(int32_t index) const;

  // Position id of token `index`; index >= length() is a generated token.
  int32_t PositionOf(int32_t index) const;

 private:
  SegmentLayout() = default;

  int32_t prefix_length_ = 0;
  int32_t original_length_ = 0;
  PositionMode position_mode_ = PositionMode::kOverlapping;
  std::vector<TokenRange> segments_;
  std::vector<int32_t> last_own_tokens_;
  std::vector<int32_t> positions_;  // [length]
  int32_t next_position_ = 0;       // of the first generated token
};

}  // namespace chorus
