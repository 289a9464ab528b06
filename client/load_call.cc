#include "client/load_call.h"

#include <map>
#include <utility>

#include "client/timer_queue.h"

namespace chorus {

bool CallRecord::is_cancelled() const { return was_cancelled && absl::IsCancelled(status); }

bool CallRecord::is_error() const { return !status.ok() && !is_cancelled(); }

std::vector<TokenGap> TokenGaps(const CallRecord& record) {
  std::vector<TokenGap> gaps;
  std::map<int32_t, double> last_arrivals;  // by prompt index
  for (const TokenArrival& arrival : record.arrivals) {
    const auto [last, is_first] = last_arrivals.try_emplace(arrival.prompt_index, arrival.seconds);
    if (is_first) continue;
    gaps.push_back({.begin = record.sent_at + absl::Seconds(last->second),
                    .end = record.sent_at + absl::Seconds(arrival.seconds)});
    last->second = arrival.seconds;
  }
  return gaps;
}

void LoadCall::Start(ChorusClient& client, const v1::GenerateRequest& request, absl::Duration pause,
                     Listener listener) {
  listener_ = std::move(listener);
  record_.sent_at = SteadyNow();
  client.StartGenerate(request,
                       {.on_event =
                            [this, pause](const v1::GenerateResponse& event) {
                              OnEvent(event);
                              return pause;
                            },
                        .on_done = [this](const absl::Status& status) { OnDone(status); }},
                       &cancellation_);
}

void LoadCall::Cancel() {
  record_.was_cancelled = true;
  cancellation_.Cancel();
}

void LoadCall::OnEvent(const v1::GenerateResponse& event) {
  if (event.has_prompt_info()) {
    record_.prompt_tokens = event.prompt_info().prompt_tokens();
    record_.cached_tokens = event.prompt_info().cached_tokens();
  } else if (event.has_finish()) {
    record_.finish = event.finish();
  }
  const int num_tokens = event.chunk().token_ids_size();
  if (num_tokens == 0) return;
  const double seconds = absl::ToDoubleSeconds(SteadyNow() - record_.sent_at);
  record_.arrivals.push_back(
      {.seconds = seconds, .num_tokens = num_tokens, .prompt_index = event.chunk().prompt_index()});
  listener_.num_tokens->fetch_add(num_tokens, std::memory_order_relaxed);
  if (record_.arrivals.size() == 1) listener_.on_first_token(seconds);
}

void LoadCall::OnDone(const absl::Status& status) {
  record_.status = status;
  record_.seconds = absl::ToDoubleSeconds(SteadyNow() - record_.sent_at);
  // Moved out: the owner may destroy this object before the call below returns.
  const std::function<void()> on_done = std::move(listener_.on_done);
  on_done();
}

}  // namespace chorus
