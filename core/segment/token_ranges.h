#pragma once

#include <vector>

#include "absl/types/span.h"

#include "core/segment/segment_layout.h"

namespace chorus {

// Sets of token indices as ranges: ascending, none empty, no two touching.

// The part of `range` inside `window`; empty (begin == end) if there is none.
TokenRange Clip(TokenRange range, TokenRange window);

// Appends the part of `range` inside `window`, if it is not empty; joined to the last range of
// `ranges` from index `first` on where the two touch. REQUIRES: it does not begin before that one.
void AppendClipped(TokenRange range, TokenRange window, size_t first,
                   std::vector<TokenRange>* ranges);

// Appends the part of a set inside `window`, in O(log of the set + what is appended).
void AppendClipped(absl::Span<const TokenRange> set, TokenRange window,
                   std::vector<TokenRange>* ranges);

std::vector<TokenRange> Intersect(absl::Span<const TokenRange> a, absl::Span<const TokenRange> b);
std::vector<TokenRange> Unite(absl::Span<const TokenRange> a, absl::Span<const TokenRange> b);

// Is `index` in the set? O(log of the set).
bool Contains(absl::Span<const TokenRange> set, int32_t index);

}  // namespace chorus
