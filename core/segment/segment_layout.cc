#include "core/segment/segment_layout.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "core/base/check.h"

namespace chorus {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 30;

std::string Describe(const TokenRange& range) {
  return absl::StrCat("[", range.begin, ", ", range.end, ")");
}

// Position ids of every token. A gap's position continues the token before it, so only the first
// tokens of segments and the first token from original_length on are special.
std::vector<int32_t> OverlappingPositions(int32_t prefix_length,
                                          const std::vector<TokenRange>& segments,
                                          int32_t original_length, int32_t length) {
  std::vector<int32_t> positions(length);
  size_t next_segment = 0;
  int32_t position = 0;
  int32_t end_position = 0;  // one more than the largest position so far
  for (int32_t i = 0; i < length; ++i) {
    if (next_segment < segments.size() && segments[next_segment].begin == i) {
      position = prefix_length;
      ++next_segment;
    }
    if (i == original_length) position = end_position;
    positions[i] = position++;
    end_position = std::max(end_position, position);
  }
  return positions;
}

absl::Status ValidateRanges(int32_t prefix_length, const std::vector<TokenRange>& segments,
                            int32_t original_length, int32_t length) {
  if (prefix_length < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefix_length ", prefix_length, " is negative"));
  }
  if (original_length < prefix_length) {
    return absl::InvalidArgumentError(absl::StrCat("original_length ", original_length,
                                                   " is below prefix_length ", prefix_length));
  }
  if (length < original_length) {
    return absl::InvalidArgumentError(
        absl::StrCat("length ", length, " is below original_length ", original_length));
  }
  if (length > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("length ", length, " is above the limit of ", kMaxTokens, " tokens"));
  }
  int32_t previous_end = prefix_length;
  for (size_t i = 0; i < segments.size(); ++i) {
    const TokenRange& range = segments[i];
    const std::string name = absl::StrCat("segment ", i, " ", Describe(range));
    if (range.end <= range.begin) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is empty"));
    }
    if (range.begin < prefix_length) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " begins before prefix_length ", prefix_length));
    }
    if (range.begin < previous_end) {
      return absl::InvalidArgumentError(absl::StrCat(name, " overlaps or precedes segment ", i - 1,
                                                     " ", Describe(segments[i - 1])));
    }
    if (range.end > original_length) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " ends after original_length ", original_length));
    }
    previous_end = range.end;
  }
  return absl::OkStatus();
}

absl::Status ValidatePieces(const SegmentLayout::Pieces& pieces) {
  const std::pair<const char*, int32_t> lengths[] = {{"prefix_length", pieces.prefix_length},
                                                     {"separator_length", pieces.separator_length},
                                                     {"suffix_length", pieces.suffix_length}};
  for (const auto& [name, value] : lengths) {
    if (value < 0)
      return absl::InvalidArgumentError(absl::StrCat(name, " ", value, " is negative"));
  }
  int64_t total = int64_t{pieces.prefix_length} + pieces.suffix_length;
  for (size_t i = 0; i < pieces.segment_lengths.size(); ++i) {
    if (pieces.segment_lengths[i] < 1) {
      return absl::InvalidArgumentError(absl::StrCat("segment_lengths[", i, "] is ",
                                                     pieces.segment_lengths[i],
                                                     ": a segment needs at least one token"));
    }
    total += pieces.segment_lengths[i];
    if (i > 0) total += pieces.separator_length;
  }
  if (total > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the layout has ", total, " tokens; the limit is ", kMaxTokens));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SegmentLayout> SegmentLayout::FromPieces(const Pieces& pieces) {
  if (absl::Status status = ValidatePieces(pieces); !status.ok()) return status;
  const bool attached = pieces.separator_policy == SeparatorPolicy::kAttached;
  std::vector<TokenRange> segments;
  std::vector<int32_t> last_own_tokens;
  int32_t index = pieces.prefix_length;
  for (size_t i = 0; i < pieces.segment_lengths.size(); ++i) {
    const bool is_last = i + 1 == pieces.segment_lengths.size();
    const int32_t own_end = index + pieces.segment_lengths[i];
    const int32_t next = own_end + (is_last ? 0 : pieces.separator_length);
    segments.push_back({index, attached ? next : own_end});
    last_own_tokens.push_back(own_end - 1);
    index = next;
  }
  // A separator continues the segment before it under either policy, as a gap does in FromRanges.
  absl::StatusOr<SegmentLayout> layout =
      FromRanges(pieces.prefix_length, std::move(segments), index, index + pieces.suffix_length,
                 pieces.position_mode);
  CHECK(layout.ok());
  layout->last_own_tokens_ = std::move(last_own_tokens);
  return layout;
}

absl::StatusOr<SegmentLayout> SegmentLayout::FromRanges(int32_t prefix_length,
                                                        std::vector<TokenRange> segments,
                                                        int32_t original_length, int32_t length,
                                                        PositionMode position_mode) {
  if (absl::Status status = ValidateRanges(prefix_length, segments, original_length, length);
      !status.ok()) {
    return status;
  }
  SegmentLayout layout;
  layout.prefix_length_ = prefix_length;
  layout.original_length_ = original_length;
  layout.position_mode_ = position_mode;
  for (const TokenRange& range : segments) layout.last_own_tokens_.push_back(range.end - 1);
  if (position_mode == PositionMode::kOverlapping) {
    layout.positions_ = OverlappingPositions(prefix_length, segments, original_length, length);
  } else {
    layout.positions_.resize(length);
    for (int32_t i = 0; i < length; ++i) layout.positions_[i] = i;
  }
  for (int32_t position : layout.positions_) {
    layout.next_position_ = std::max(layout.next_position_, position + 1);
  }
  layout.segments_ = std::move(segments);
  return layout;
}

int32_t SegmentLayout::SegmentOf(int32_t index) const {
  const auto after =
      std::upper_bound(segments_.begin(), segments_.end(), index,
                       [](int32_t value, const TokenRange& range) { return value < range.begin; });
  if (after == segments_.begin()) return -1;
  const auto candidate = after - 1;
  if (index >= candidate->end) return -1;
  return static_cast<int32_t>(candidate - segments_.begin());
}

int32_t SegmentLayout::PositionOf(int32_t index) const {
  CHECK(index >= 0);
  return index < length() ? positions_[index] : next_position_ + (index - length());
}

}  // namespace chorus
