#pragma once

#include <cstdint>

namespace chorus {

// What a layer's attention adds to the segment mask: nothing, a sliding window (Mistral) or chunks
// (Llama 4). It is an AND with the mask, and measured in RoPE positions, never in token indexes:
//
//   kFull      sees every key that the segment mask allows
//   kSliding   position(q) - position(k) < size
//   kChunked   position(q) / size == position(k) / size, both rounded down
//
// In a plain causal prompt and under SEQUENTIAL positions index and position are the same, so these
// are the masks that such models were trained with. Under OVERLAPPING positions a generated row
// stands as far from a segment's keys as if that segment were alone before it: it sees the tail of
// every segment, and what a segment's keys are does not depend on the segments beside it, nor on
// their order. So a cached segment stays exact whatever it is used with.
//
// A key is never after the query by position where the segment mask allows it, so only the first
// visible position is limited.
struct AttentionWindow {
  enum class Kind { kFull, kSliding, kChunked };
  Kind kind = Kind::kFull;
  int32_t size = 0;  // positions, >= 1; 0 for kFull

  bool is_full() const { return kind == Kind::kFull; }

  // The first position that a query at `position` >= 0 may see; at most `position`.
  int32_t FirstPosition(int32_t position) const {
    switch (kind) {
      case Kind::kSliding:
        return position < size ? 0 : position - size + 1;
      case Kind::kChunked:
        return position - position % size;
      case Kind::kFull:
        break;
    }
    return 0;
  }

  // May a query see a key of these positions, as far as the window is concerned?
  bool Allows(int32_t query_position, int32_t key_position) const {
    return key_position >= FirstPosition(query_position);
  }

  friend bool operator==(const AttentionWindow&, const AttentionWindow&) = default;
};

}  // namespace chorus
