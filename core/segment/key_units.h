#pragma once

#include <cstdint>
#include <vector>

namespace chorus {

// Keys of one sequence by what they belong to, for statistics of attention: every key [begin, end)
// of a range counts to `unit`. Ascending, disjoint, none empty; keys in no range are not counted.
// Ranges may reach past the keys that there are.
struct KeyUnits {
  struct Range {
    int32_t begin = 0;
    int32_t end = 0;
    int32_t unit = 0;  // 0..num_units-1
  };
  int32_t num_units = 0;
  std::vector<Range> ranges;
};

}  // namespace chorus
