#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "chorus/v1/inference.pb.h"

#include "client/chorus_client.h"

namespace chorus {

// A message that brought tokens.
struct TokenArrival {
  double seconds = 0;  // since the request was sent
  int32_t num_tokens = 0;
  int32_t prompt_index = 0;  // whose, for PER_PROMPT
};

// The time between two arrivals of tokens of one answer.
struct TokenGap {
  absl::Time begin, end;
};

// What one request measured.
struct CallRecord {
  absl::Time sent_at;  // SteadyNow
  absl::Status status;
  bool was_cancelled = false;  // by this client; it may have ended well, or failed, even so
  double seconds = 0;          // from sending to the end
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  std::vector<TokenArrival> arrivals;
  v1::FinishInfo finish;  // of a request that ended well

  // Ended by this client: a server's CANCELLED that nobody here asked for is an error.
  bool is_cancelled() const;
  bool is_error() const;
};

// Between consecutive arrivals with the same prompt_index, in order of arrival.
std::vector<TokenGap> TokenGaps(const CallRecord& record);

// One request of a load, running. gRPC's threads write its record until `on_done` is called; from
// then on it is its owner's, who keeps it at least until then.
class LoadCall {
 public:
  // Called on gRPC's threads. on_first_token may come or not, on_done comes once, last. All three
  // outlive the call.
  struct Listener {
    std::function<void(double seconds)> on_first_token;
    std::function<void()> on_done;
    std::atomic<int64_t>* num_tokens = nullptr;  // counts along
  };

  LoadCall() = default;
  LoadCall(const LoadCall&) = delete;
  LoadCall& operator=(const LoadCall&) = delete;

  // `pause`: between two reads. Once.
  void Start(ChorusClient& client, const v1::GenerateRequest& request, absl::Duration pause,
             Listener listener);

  // From the owner's thread.
  void Cancel();

  const CallRecord& record() const { return record_; }

 private:
  void OnEvent(const v1::GenerateResponse& event);
  void OnDone(const absl::Status& status);

  Listener listener_;
  CallRecord record_;
  Cancellation cancellation_;
};

}  // namespace chorus
