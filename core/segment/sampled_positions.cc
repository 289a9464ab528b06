#include "core/segment/sampled_positions.h"

#include <algorithm>
#include <map>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/check.h"
#include "core/base/field_error.h"

namespace chorus {
namespace {

// The lower, the longer it stays. The first generated token stays whatever happens.
constexpr int kAlways = 0, kBoundary = 1, kGenerationStart = 2, kThird = 3, kGenerated = 4,
              kLast = 5;

struct Candidate {
  int priority = kAlways;
  int32_t position = 0;
  friend auto operator<=>(const Candidate&, const Candidate&) = default;
};

int32_t NumBoundaries(const TokenRange& segment) { return std::min(segment.length(), 2); }

// All segments, or as many as have their boundaries within `room` >= 4, spread evenly.
std::vector<TokenRange> KeptSegments(const std::vector<TokenRange>& segments, int32_t room) {
  int64_t num_boundaries = 0;
  for (const TokenRange& segment : segments) num_boundaries += NumBoundaries(segment);
  if (num_boundaries <= room) return segments;
  const int64_t last_kept = room / 2 - 1;
  const int64_t last = static_cast<int64_t>(segments.size()) - 1;
  std::vector<TokenRange> kept;
  // Index i * last / last_kept, rounded; more segments than are kept, so no two are the same.
  for (int64_t i = 0; i <= last_kept; ++i) {
    kept.push_back(segments[(2 * i * last + last_kept) / (2 * last_kept)]);
  }
  return kept;
}

std::vector<Candidate> Candidates(const SegmentLayout& layout, int32_t length,
                                  const PositionSampling& sampling) {
  const int32_t original_length = layout.original_length();
  std::vector<Candidate> all;
  const auto add = [&](int priority, int32_t position) {
    if (position >= 0 && position < length) all.push_back({priority, position});
  };
  add(kAlways, original_length);
  int32_t room = sampling.max_positions - (original_length < length ? 1 : 0);
  if (sampling.includes_prefix && layout.prefix_length() > 0) {
    const TokenRange prefix = {0, layout.prefix_length()};
    // Only where it leaves room for the first and the last segment.
    if (room - NumBoundaries(prefix) >= 4) {
      add(kBoundary, prefix.begin);
      add(kBoundary, prefix.end - 1);
      room -= NumBoundaries(prefix);
    }
  }
  for (const TokenRange& segment : KeptSegments(layout.segments(), room)) {
    add(kBoundary, segment.begin);
    add(kBoundary, segment.end - 1);
    if (segment.length() <= 4) continue;
    add(kThird, segment.begin + segment.length() / 3);
    add(kThird, static_cast<int32_t>(segment.begin + int64_t{2} * segment.length() / 3));
  }
  add(kGenerationStart, original_length - 1);
  for (int32_t i = 1; i <= 4; ++i) add(kGenerated, original_length + i);
  add(kLast, length - 1);
  return all;
}

// Each position once, with its best priority; the best max_positions of them, ascending.
std::vector<int32_t> BestPositions(const std::vector<Candidate>& candidates,
                                   int32_t max_positions) {
  std::map<int32_t, int> best_priority;
  for (const Candidate& candidate : candidates) {
    const auto [found, is_new] = best_priority.try_emplace(candidate.position, candidate.priority);
    found->second = std::min(found->second, candidate.priority);
  }
  std::vector<Candidate> best;
  for (const auto& [position, priority] : best_priority) best.push_back({priority, position});
  std::sort(best.begin(), best.end());
  if (best.size() > static_cast<size_t>(max_positions)) best.resize(max_positions);
  std::vector<int32_t> positions;
  for (const Candidate& candidate : best) positions.push_back(candidate.position);
  std::sort(positions.begin(), positions.end());
  return positions;
}

// Splits the largest gaps until there are `count` positions or no gap is left.
void FillGaps(size_t count, std::vector<int32_t>* positions) {
  struct Gap {
    int32_t begin, end;
    // The largest first, then the first.
    bool operator<(const Gap& other) const {
      return std::pair(end - begin, -begin) < std::pair(other.end - other.begin, -other.begin);
    }
  };
  std::priority_queue<Gap> gaps;
  const auto add = [&](int32_t begin, int32_t end) {
    if (end - begin > 1) gaps.push({begin, end});
  };
  for (size_t i = 1; i < positions->size(); ++i) add((*positions)[i - 1], (*positions)[i]);
  while (positions->size() < count && !gaps.empty()) {
    const Gap gap = gaps.top();
    gaps.pop();
    const int32_t middle = gap.begin + (gap.end - gap.begin) / 2;
    positions->push_back(middle);
    add(gap.begin, middle);
    add(middle, gap.end);
  }
  std::sort(positions->begin(), positions->end());
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> SamplePositions(const SegmentLayout& layout, int32_t length,
                                                     const PositionSampling& sampling) {
  CHECK(length >= layout.original_length());
  if (sampling.max_positions < kMinSampledPositions) {
    return FieldError("max_positions", absl::StrCat(sampling.max_positions),
                      absl::StrCat("must be at least ", kMinSampledPositions));
  }
  std::vector<int32_t> positions =
      BestPositions(Candidates(layout, length, sampling), sampling.max_positions);
  FillGaps(sampling.max_positions, &positions);
  return positions;
}

std::string PositionLabel(const SegmentLayout& layout, int32_t position) {
  if (position == layout.original_length()) return "G0";
  const int32_t segment = layout.SegmentOf(position);
  if (segment < 0) return "";
  const TokenRange& range = layout.segments()[segment];
  if (position == range.begin) return absl::StrCat("S", segment + 1);
  if (position == range.end - 1) return absl::StrCat("E", segment + 1);
  return "";
}

std::vector<RepresentativeQuery> RepresentativeQueries(const SegmentLayout& layout,
                                                       int32_t length) {
  const auto sixth = [](const TokenRange& segment) {
    return std::min(segment.begin + 5, segment.end - 1);
  };
  std::vector<RepresentativeQuery> queries;
  if (!layout.segments().empty()) {
    queries.push_back({"first segment", sixth(layout.segments().front())});
    queries.push_back({"last segment", sixth(layout.segments().back())});
  }
  if (layout.original_length() < length) {
    queries.push_back({"first generated", layout.original_length()});
  }
  if (length > 0) queries.push_back({"last", length - 1});
  return queries;
}

}  // namespace chorus
