#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <variant>

#include "core/engine/token_sink.h"

namespace chorus {

// One event of a request, as the engine gave it.
using StreamEvent = std::variant<PromptSummary, TokenEvent, FinishSummary>;

// What one request has for its reader that gRPC has not taken yet: the start, tokens, the end, in
// this order. Tokens that come while others of the same prompt wait are merged with them, so a slow
// reader gets fewer, larger messages and loses nothing. Owned by a stream and guarded by its lock.
class EventBuffer {
 public:
  void AddStart(PromptSummary summary);
  void AddToken(TokenEvent event);
  void AddFinish(FinishSummary summary);
  void Clear();

  bool empty() const { return !start_.has_value() && chunks_.empty() && !finish_.has_value(); }

  // The measure of what waits, for backpressure: one a token, one for anything without a token.
  int32_t num_waiting() const { return num_waiting_; }

  // Takes out the next event: of tokens, all that wait of one prompt. REQUIRES: !empty().
  StreamEvent TakeNext();

 private:
  struct Chunk {
    TokenEvent event;
    int32_t weight = 0;  // what it counts in num_waiting_
  };

  std::optional<PromptSummary> start_;
  std::deque<Chunk> chunks_;  // at most one a prompt, in order of their first tokens
  std::optional<FinishSummary> finish_;
  int32_t num_waiting_ = 0;
};

}  // namespace chorus
