#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "core/engine/token_sink.h"

namespace chorus {

// Keeps everything that happens to one request; Wait() returns when it has ended. Read the members
// only after Wait().
class CollectingSink final : public TokenSink {
 public:
  void OnStart(const PromptSummary& prompt_summary) override { start = prompt_summary; }
  void OnToken(TokenEvent event) override { tokens.push_back(std::move(event)); }
  void OnFinish(const absl::Status& final_status, FinishSummary finish_summary) override {
    status = final_status;
    finish = std::move(finish_summary);
    done_.Notify();
  }

  void Wait() { done_.WaitForNotification(); }

  PromptSummary start;
  std::vector<TokenEvent> tokens;
  absl::Status status;
  FinishSummary finish;

 private:
  absl::Notification done_;
};

}  // namespace chorus
