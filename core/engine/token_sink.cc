#include "core/engine/token_sink.h"

#include <iterator>
#include <utility>

namespace chorus {
namespace {

template <typename Value>
void MoveBehind(std::vector<Value> from, std::vector<Value>* to) {
  to->insert(to->end(), std::make_move_iterator(from.begin()),
             std::make_move_iterator(from.end()));
}

}  // namespace

void MergeEvent(TokenEvent event, TokenEvent* into) {
  into->text += event.text;
  MoveBehind(std::move(event.token_ids), &into->token_ids);
  MoveBehind(std::move(event.logprobs), &into->logprobs);
  MoveBehind(std::move(event.top_logprobs), &into->top_logprobs);
  MoveBehind(std::move(event.attribution), &into->attribution);
  MoveBehind(std::move(event.disagreement), &into->disagreement);
  MoveBehind(std::move(event.attention_steps), &into->attention_steps);
}

}  // namespace chorus
