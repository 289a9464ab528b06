#include "server/event_buffer.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace chorus {
namespace {

int32_t WeightOf(const TokenEvent& event) {
  return std::max<int32_t>(1, static_cast<int32_t>(event.token_ids.size()));
}

}  // namespace

void EventBuffer::AddStart(PromptSummary summary) {
  start_ = std::move(summary);
  ++num_waiting_;
}

void EventBuffer::AddToken(TokenEvent event) {
  const int32_t weight = WeightOf(event);
  num_waiting_ += weight;
  const auto chunk = std::find_if(chunks_.begin(), chunks_.end(), [&](const Chunk& waiting) {
    return waiting.event.prompt_index == event.prompt_index;
  });
  if (chunk == chunks_.end()) {
    chunks_.push_back({std::move(event), weight});
    return;
  }
  MergeEvent(std::move(event), &chunk->event);
  chunk->weight += weight;
}

void EventBuffer::AddFinish(FinishSummary summary) {
  finish_ = std::move(summary);
  ++num_waiting_;
}

void EventBuffer::Clear() { *this = EventBuffer(); }

StreamEvent EventBuffer::TakeNext() {
  CHECK(!empty());
  if (start_.has_value()) {
    --num_waiting_;
    return *std::exchange(start_, std::nullopt);
  }
  if (!chunks_.empty()) {
    Chunk chunk = std::move(chunks_.front());
    chunks_.pop_front();
    num_waiting_ -= chunk.weight;
    return std::move(chunk.event);
  }
  --num_waiting_;
  return *std::exchange(finish_, std::nullopt);
}

}  // namespace chorus
