#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/load_call.h"
#include "client/load_stall_probe.h"
#include "client/load_statistics.h"

namespace chorus {

// Whether the first line of `text` holds one of `answers`, whatever the case.
bool IsRightAnswer(const std::string& text, const std::vector<std::string>& answers);

// What a run measured. One thread.
struct LoadResult {
  struct Error {
    int64_t count = 0;
    std::string first_message;
  };

  int64_t num_sent = 0;  // = ok + cancelled + errors, once all have ended
  int64_t num_ok = 0;
  int64_t num_cancelled = 0;  // by this client
  int64_t num_not_sent = 0;   // open loop: too many were running
  std::map<absl::StatusCode, Error> errors;
  int64_t num_right = 0;

  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double seconds = 0;  // from the first measured request's sending to the last one's end

  SampleSet ttft, inter_token;  // of every request that got tokens
  SampleSet end_to_end, queue;  // of those that ended well
  std::optional<StallProbeResult> stall_probe;

  // Adds a request that has ended; num_sent and seconds are its sender's.
  void Add(const CallRecord& record, const std::vector<std::string>& answers);

  int64_t num_failed() const;
};

}  // namespace chorus
