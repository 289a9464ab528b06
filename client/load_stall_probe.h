#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "client/load_call.h"
#include "client/load_statistics.h"

namespace chorus {

// What --stall_probe found, in seconds. Without an error every number is set.
struct StallProbeResult {
  int prompt_tokens = 0;
  double ttft = 0;
  double median_inter_token_before = 0;
  double p99_inter_token_during = 0;
  double max_inter_token_during = 0;
  double ratio = 0;   // p99 during / median before
  std::string error;  // why there is nothing to compare; else empty
};

// Compares the gaps between tokens of the other requests before a long prompt was sent with those
// while it was read. Gaps of several tokens in one message count once. One thread.
class StallProbe {
 public:
  explicit StallProbe(int prompt_tokens) { result_.prompt_tokens = prompt_tokens; }

  void OnSent(absl::Time sent_at) { sent_at_ = sent_at; }

  // The probe has ended.
  void OnDone(const CallRecord& record);

  // Of any other request, in any order, before or after the probe's own end.
  void AddGap(const TokenGap& gap);

  // Call once all requests have ended.
  StallProbeResult Result();

 private:
  StallProbeResult result_;
  absl::Time sent_at_ = absl::InfiniteFuture();
  absl::Time first_token_at_ = absl::InfiniteFuture();
  SampleSet before_;              // gaps that ended before the probe was sent
  std::vector<TokenGap> during_;  // that ended later, and began before its first token, if known
};

}  // namespace chorus
