#pragma once

#include <vector>

namespace chorus {

// The attention rule of the founding documents, word for word and pair by pair: what counts in
// tests are made from, independently of core/segment.
struct SegmentRule {
  std::vector<std::vector<int>> segments;  // [begin, end) pairs
  int original_length = 0;
  int prefix_length = 0;

  int SegmentOf(int token) const {
    for (size_t i = 0; i < segments.size(); ++i) {
      if (segments[i][0] <= token && token < segments[i][1]) return static_cast<int>(i);
    }
    return -1;
  }

  bool Allows(int query, int key) const {
    if (query < key) return false;
    if (query >= original_length) return true;
    if (key < prefix_length) return query < prefix_length || SegmentOf(query) >= 0;
    return SegmentOf(query) >= 0 && SegmentOf(query) == SegmentOf(key);
  }
};

}  // namespace chorus
