#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "core/engine/model_runner.h"

namespace chorus {

// A ModelRunner that costs next to nothing, so that what surrounds it can be measured: the n-th
// token of every answer is the n-th of `answer`, over and over, whatever was asked. It looks at
// nothing but the choices; FakeModelRunner is the one that checks plans.
class InstantModelRunner final : public ModelRunner {
 public:
  // REQUIRES: `answer` is not empty and its ids are below info.vocab_size.
  InstantModelRunner(ModelInfo info, std::vector<int32_t> answer)
      : info_(std::move(info)), answer_(std::move(answer)) {}

  const ModelInfo& info() const override { return info_; }

  absl::StatusOr<StepResult> Run(const StepPlan& plan) override {
    StepResult result;
    result.tokens.resize(plan.choices.size());
    for (size_t i = 0; i < plan.choices.size(); ++i) {
      const auto index = static_cast<size_t>(plan.choices[i].draw_index) % answer_.size();
      result.tokens[i].token_id = answer_[index];
      result.tokens[i].logprob = -1.0f;
    }
    return result;
  }

 private:
  const ModelInfo info_;
  const std::vector<int32_t> answer_;
};

}  // namespace chorus
