#include "core/segment/row_intervals.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace chorus {
namespace {

// Appends [begin, end), joined to the interval before it when the two touch and are of one kind.
void AppendMerged(std::vector<KeyInterval>& keys, const KeyInterval& interval) {
  if (interval.begin == interval.end) return;
  if (!keys.empty() && keys.back().end == interval.begin &&
      keys.back().is_segment == interval.is_segment) {
    keys.back().end = interval.end;
    return;
  }
  keys.push_back(interval);
}

std::vector<KeyInterval> FusedKeys(const SegmentLayout& layout, int32_t length,
                                   bool split_segment_columns) {
  std::vector<KeyInterval> keys;
  int32_t index = 0;
  if (split_segment_columns) {
    for (const TokenRange& segment : layout.segments()) {
      AppendMerged(keys, {index, segment.begin, /*is_segment=*/false});
      AppendMerged(keys, {segment.begin, segment.end, /*is_segment=*/true});
      index = segment.end;
    }
  }
  AppendMerged(keys, {index, length, /*is_segment=*/false});
  return keys;
}

// Appends `keys` cut at those of `jumps` (ascending) that lie inside it.
void AppendCut(const KeyInterval& keys, const std::vector<int32_t>& jumps,
               const SegmentLayout& layout, std::vector<KeyInterval>& pieces) {
  auto jump = std::upper_bound(jumps.begin(), jumps.end(), keys.begin);
  for (int32_t begin = keys.begin; begin < keys.end;) {
    const int32_t end = jump == jumps.end() ? keys.end : std::min(*jump++, keys.end);
    pieces.push_back({begin, end, keys.is_segment, layout.PositionOf(begin) - begin});
    begin = end;
  }
}

// Sum over q in [rows.begin, rows.end) of the number of k in [begin, end) with k <= q.
int64_t CountInterval(const TokenRange& rows, int32_t begin, int32_t end) {
  // Rows in [begin, end) see q - begin + 1 of them, rows from `end` on see all.
  const int64_t first = std::clamp(begin, rows.begin, rows.end);
  const int64_t full = std::clamp(end, rows.begin, rows.end);
  const int64_t partial_rows = full - first;
  const int64_t partial_sum =
      partial_rows * (first - begin + 1) + partial_rows * (partial_rows - 1) / 2;
  return partial_sum + (rows.end - full) * (int64_t{end} - begin);
}

}  // namespace

RowIntervals RowIntervals::FromLayout(const SegmentLayout& layout, int32_t length,
                                      bool split_segment_columns) {
  CHECK(length >= layout.length());
  RowIntervals result;
  const auto add = [&](int32_t begin, int32_t end, std::vector<KeyInterval> keys) {
    if (begin < end) result.runs_.push_back({{begin, end}, std::move(keys)});
  };
  const int32_t prefix_length = layout.prefix_length();
  add(0, prefix_length, {{0, prefix_length, false}});
  int32_t index = prefix_length;
  for (const TokenRange& segment : layout.segments()) {
    add(index, segment.begin, {});
    std::vector<KeyInterval> keys;
    if (prefix_length > 0) keys.push_back({0, prefix_length, false});
    keys.push_back({segment.begin, segment.end, false});
    add(segment.begin, segment.end, std::move(keys));
    index = segment.end;
  }
  add(index, layout.original_length(), {});
  if (length > layout.original_length()) {
    add(layout.original_length(), length, FusedKeys(layout, length, split_segment_columns));
  }
  return result;
}

RowIntervals RowIntervals::FromRuns(std::vector<Run> runs) {
  RowIntervals result;
  result.runs_ = std::move(runs);
  return result;
}

RowIntervals RowIntervals::CutAtPositions(const SegmentLayout& layout) const {
  // Positions run on by one but at the first token of a segment and at the first fused token.
  std::vector<int32_t> jumps;
  const auto add_jump = [&](int32_t index) {
    if (index > 0 && layout.PositionOf(index) != layout.PositionOf(index - 1) + 1) {
      jumps.push_back(index);
    }
  };
  for (const TokenRange& segment : layout.segments()) add_jump(segment.begin);
  add_jump(layout.original_length());
  RowIntervals result;
  for (const Run& run : runs_) {
    std::vector<KeyInterval> pieces;
    for (const KeyInterval& keys : run.keys) AppendCut(keys, jumps, layout, pieces);
    result.runs_.push_back({run.rows, std::move(pieces)});
  }
  return result;
}

const RowIntervals::Run& RowIntervals::RunOf(int32_t q) const {
  CHECK(!runs_.empty() && q >= 0 && q < runs_.back().rows.end);
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), q,
                       [](int32_t value, const Run& run) { return value < run.rows.begin; });
  return *(after - 1);
}

int64_t RowIntervals::CountAllowed() const {
  int64_t count = 0;
  for (const Run& run : runs_) {
    for (const KeyInterval& keys : run.keys) count += CountInterval(run.rows, keys.begin, keys.end);
  }
  return count;
}

}  // namespace chorus
