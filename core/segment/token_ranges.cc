#include "core/segment/token_ranges.h"

#include <algorithm>

namespace chorus {
namespace {

// The first range of the set that ends after `index`.
absl::Span<const TokenRange>::const_iterator FirstEndingAfter(absl::Span<const TokenRange> set,
                                                              int32_t index) {
  return std::upper_bound(set.begin(), set.end(), index,
                          [](int32_t value, const TokenRange& range) { return value < range.end; });
}

}  // namespace

TokenRange Clip(TokenRange range, TokenRange window) {
  const int32_t begin = std::max(range.begin, window.begin);
  return {begin, std::max(begin, std::min(range.end, window.end))};
}

void AppendClipped(TokenRange range, TokenRange window, size_t first,
                   std::vector<TokenRange>* ranges) {
  const TokenRange part = Clip(range, window);
  if (part.length() == 0) return;
  if (ranges->size() > first && part.begin <= ranges->back().end) {
    ranges->back().end = std::max(ranges->back().end, part.end);
  } else {
    ranges->push_back(part);
  }
}

void AppendClipped(absl::Span<const TokenRange> set, TokenRange window,
                   std::vector<TokenRange>* ranges) {
  const size_t first = ranges->size();
  for (auto range = FirstEndingAfter(set, window.begin);
       range != set.end() && range->begin < window.end; ++range) {
    AppendClipped(*range, window, first, ranges);
  }
}

std::vector<TokenRange> Intersect(absl::Span<const TokenRange> a, absl::Span<const TokenRange> b) {
  std::vector<TokenRange> both;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    AppendClipped(a[i], b[j], /*first=*/0, &both);
    if (a[i].end < b[j].end) {
      ++i;
    } else {
      ++j;
    }
  }
  return both;
}

std::vector<TokenRange> Unite(absl::Span<const TokenRange> a, absl::Span<const TokenRange> b) {
  std::vector<TokenRange> either;
  for (size_t i = 0, j = 0; i < a.size() || j < b.size();) {
    const bool takes_a = j == b.size() || (i < a.size() && a[i].begin <= b[j].begin);
    const TokenRange& next = takes_a ? a[i++] : b[j++];
    AppendClipped(next, /*window=*/next, /*first=*/0, &either);
  }
  return either;
}

bool Contains(absl::Span<const TokenRange> set, int32_t index) {
  const auto range = FirstEndingAfter(set, index);
  return range != set.end() && range->begin <= index;
}

}  // namespace chorus
