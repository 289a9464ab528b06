#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/token_sink.h"

namespace chorus {

// What two answers are compared by: the first line, NFKC, lower case, without outer white space and
// without the punctuation at its end. `text` is UTF-8. "Paris." and " PARIS" are one answer.
std::string NormaliseAnswer(std::string_view text);

struct VoteResult {
  int32_t winner = 0;            // caller's index of the answer that speaks for the winning group
  std::vector<VoteTally> tally;  // best first
};

// Majority over normalised answers. The most frequent wins; ties go to the larger mean over a
// group's members of their mean log-probability (an answer without tokens counts as minus
// infinity), then to the group whose first member stands first in canonical order. The winner's
// best member, by mean log-probability, then canonical order, speaks for it. `answers` are in the
// caller's order and not empty; `canonical_order` is a permutation of their indexes.
VoteResult CountVotes(absl::Span<const Answer> answers, absl::Span<const int32_t> canonical_order);

}  // namespace chorus
