#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "core/engine/model_runner.h"

namespace chorus {

// The arithmetic of a model without weights: a row's state is a hash of its token and of the states
// of the keys that it sees, in order, and how far away they stand; its logits are a hash of its
// state. Whoever lets a row see one key too many, too few, stale or at a wrong position gets other
// tokens. As with rotary positions, only distances count, so a moved key keeps its state.
namespace fake_model {

// What a row sees of a key before itself.
struct VisibleKey {
  uint64_t state = 0;
  int32_t distance = 0;     // the row's position minus the key's
  bool is_segment = false;  // counts only where scaling applies
};

// `sees_itself`: false for the rows of a gap. `scaling`: null where none applies.
uint64_t RowState(int32_t token_id, bool sees_itself, absl::Span<const VisibleKey> keys,
                  const SegmentScaling* scaling);

// [vocab_size], each in [-4, 4).
std::vector<float> LogitsOf(uint64_t state, int32_t vocab_size);

// Combines rows in their order, accumulating in float32, so that another order gives other bits.
std::vector<float> Combine(CombineRule rule, absl::Span<const float> weights,
                           const std::vector<std::vector<float>>& rows);

// Appends the log-softmax of `row` at each of `targets`.
void AppendLogprobs(const std::vector<float>& row, absl::Span<const int32_t> targets,
                    std::vector<float>* logprobs);

// Chooses from the combined row as SamplingParams says (top_k, top_p and min_p are not modelled).
ChosenToken Choose(const std::vector<float>& combined, const TokenChoice& choice);

}  // namespace fake_model

struct FakeModelOptions {
  int32_t vocab_size = 300;
  int32_t max_positions = 4096;
  int32_t num_kv_slots = 8192;
  std::string device = "cpu";
  // Called by the worker thread before each step, with the number of steps before; may block, and
  // may return an error, which then is the step's.
  std::function<absl::Status(const StepPlan& plan, int64_t step)> before_step;
  // The token of a choice, instead of the one drawn.
  std::function<std::optional<int32_t>(const TokenChoice& choice)> forced_token;
  // The status of a choice, which fails alone.
  std::function<absl::Status(const TokenChoice& choice)> choice_status;
};

// A deterministic ModelRunner without torch. It checks every plan (see .cc); a plan that breaks the
// rules is an INTERNAL error that says which.
class FakeModelRunner final : public ModelRunner {
 public:
  explicit FakeModelRunner(FakeModelOptions options);

  const ModelInfo& info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;

 private:
  struct Slot {
    bool written = false;
    uint64_t state = 0;
    int32_t position = 0;
  };
  struct RowPlace {
    int32_t row = 0;
    int32_t query = 0;  // logical index
    const AttentionRun* run = nullptr;
  };

  absl::Status CheckShapes(const StepPlan& plan) const;
  absl::Status CheckRun(const StepPlan& plan, const AttentionRun& run) const;
  absl::Status CheckMoves(const StepPlan& plan) const;
  absl::Status CheckChoices(const StepPlan& plan) const;
  absl::StatusOr<std::vector<RowPlace>> PlaceRows(const StepPlan& plan) const;
  // A slot as this step leaves it to readers: a moved one has what it is moved from.
  Slot Read(int32_t slot) const;
  absl::StatusOr<uint64_t> StateOf(const StepPlan& plan, const RowPlace& place) const;
  absl::StatusOr<StepResult> RunChecked(const StepPlan& plan);

  const FakeModelOptions options_;
  ModelInfo info_;
  std::vector<Slot> slots_;
  std::map<int32_t, KvMove> moves_;  // of the present step, by to_slot
  int64_t num_steps_ = 0;
};

}  // namespace chorus
