#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace chorus {

// Watches the text of one sequence for its stop strings. Text that may still turn out to be the
// start of a stop string is held back, so nothing of one is ever emitted (unless include_stop asks
// for it), wherever token borders fall. Linear in text and stop strings together: an Aho-Corasick
// automaton over bytes. Owned and used by one thread; copies are independent.
//
// The match that is complete first wins, of those complete at the same byte the longest: with "ab"
// and "b", "xab" stops at "ab"; with "abc" and "b" it stops at "b". That is the one rule under
// which the outcome is known at once and does not depend on how the text is cut into tokens.
class StopChecker {
 public:
  struct Result {
    std::string emit;  // text that is final
    std::optional<int>
        matched_stop_index;  // into the stop strings as given: the sequence ends here
  };

  // Empty stop strings never match. Of equal ones the first is reported.
  StopChecker(const std::vector<std::string>& stop_strings, bool include_stop);

  // Takes the next text of the sequence. After a match everything more is ignored.
  Result Push(std::string_view text);

  // The sequence ended otherwise: returns the text still held back. Nothing after a match.
  std::string Flush();

 private:
  struct Node {
    int32_t fallback = 0;  // the node of the longest proper suffix that starts a stop string
    int32_t length = 0;    // bytes from the root
    int32_t stop = -1;     // the stop string that ends here: the longest that is a suffix
    int32_t stop_length = 0;
  };

  int32_t Child(int32_t node, unsigned char byte) const;  // -1: none
  int32_t Advance(int32_t node, unsigned char byte) const;
  void LinkNodes();

  bool include_stop_;
  std::vector<Node> nodes_;                         // [0] is the root
  absl::flat_hash_map<int64_t, int32_t> children_;  // node << 8 | byte
  int32_t state_ = 0;
  std::string held_;  // the last nodes_[state_].length bytes
  bool is_stopped_ = false;
};

}  // namespace chorus
