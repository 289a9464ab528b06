#include "client/load_stall_probe.h"

#include "absl/strings/str_cat.h"

namespace chorus {

void StallProbe::OnDone(const CallRecord& record) {
  if (record.arrivals.empty()) {
    result_.error = record.status.ok()
                        ? "the probe got no token"
                        : absl::StrCat("the probe failed: ", record.status.message());
    return;
  }
  result_.ttft = record.arrivals.front().seconds;
  first_token_at_ = record.sent_at + absl::Seconds(result_.ttft);
}

// The gap that a long step makes ends with that step, as does the wait for the probe's first token:
// which of the two arrives first is chance. So a gap counts if it overlaps the wait.
void StallProbe::AddGap(const TokenGap& gap) {
  if (gap.end <= sent_at_) {
    before_.Add(absl::ToDoubleSeconds(gap.end - gap.begin));
  } else if (gap.begin < first_token_at_) {
    during_.push_back(gap);
  }
}

StallProbeResult StallProbe::Result() {
  SampleSet during;
  for (const TokenGap& gap : during_) {
    if (gap.begin < first_token_at_) during.Add(absl::ToDoubleSeconds(gap.end - gap.begin));
  }
  const Summary before = before_.Summarize();
  const Summary stalled = during.Summarize();
  if (sent_at_ == absl::InfiniteFuture()) {
    result_.error = "the run ended before --stall_probe_after";
  } else if (result_.error.empty() && (before.count == 0 || stalled.count == 0)) {
    result_.error = "no other request got tokens before or during the probe";
  }
  if (!result_.error.empty()) return result_;
  result_.median_inter_token_before = before.p50;
  result_.p99_inter_token_during = stalled.p99;
  result_.max_inter_token_during = stalled.max;
  if (before.p50 > 0) result_.ratio = stalled.p99 / before.p50;
  return result_;
}

}  // namespace chorus
