#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "core/engine/model_runner.h"

namespace chorus {

struct SimulatedModelOptions {
  int32_t vocab_size = 300;
  int32_t max_positions = 1 << 15;
  int32_t num_kv_slots = 1 << 16;
  // A step takes per_step + rows * per_row + (keys that the rows attend to) * per_key.
  absl::Duration per_step = absl::Milliseconds(30);
  absl::Duration per_row = absl::Milliseconds(1);
  absl::Duration per_key = absl::Microseconds(2);
  int32_t eos_token_id = 2;
  int32_t eos_period = 64;    // one choice in so many is the end token; 0: none
  int32_t check_period = 16;  // one row in so many has all its keys looked at
  // Told how long each step takes, before it returns: what moves a virtual clock. May be null.
  std::function<void(absl::Duration)> on_time;
  // Whether a step fails, by the number of steps before it. May be null.
  std::function<bool(int64_t step)> fails;
};

// A model without arithmetic, for simulations of millions of rows. A row's state is a hash of its
// token and of the state of the last key that it sees in each interval, which stands for all keys
// before that one: a chain, as each was hashed from the one before itself. So a row costs O(1), and
// whoever reads a slot that is stale or another's gets other tokens. For sampled rows every link of
// the chain is checked. Slots must be in range, written once a step, and written before they are
// read; a plan that breaks this is an INTERNAL error, remembered in first_error(). Probes count keys
// (fake_probes.h), which costs O(runs) each.
class SimulatedModelRunner final : public ModelRunner {
 public:
  explicit SimulatedModelRunner(SimulatedModelOptions options);

  const ModelInfo& info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const StepPlan& plan) override;

  // What `rows` rows that attend to `keys` keys in all take.
  absl::Duration CostOf(int64_t rows, int64_t keys) const;

  // The first plan that broke the rules; empty if none did.
  const std::string& first_error() const { return first_error_; }
  int64_t num_steps() const { return num_steps_; }
  int64_t num_rows() const { return num_rows_; }
  int64_t num_failed_steps() const { return num_failed_steps_; }
  int64_t num_tokens() const { return num_tokens_; }  // chosen and given out, without scoring ones
  // Requests that got a token in one step, at most.
  int32_t max_choosing_requests() const { return max_choosing_requests_; }
  // Requests that would have got a token in steps that failed.
  int64_t num_failed_choosing_requests() const { return num_failed_choosing_requests_; }

 private:
  struct Slot {
    uint64_t state = 0;        // 0: holds nothing
    uint64_t predecessor = 0;  // state of the key before it in its interval; 0: it is the first
    int32_t position = 0;
    int64_t written_in_step = -1;
  };

  absl::Status CheckShapes(const StepPlan& plan);
  absl::Status CheckMoves(const StepPlan& plan);
  absl::Status RunRows(const StepPlan& plan, const AttentionRun& run);
  // The slot as this step leaves it to readers: a moved one has what it is moved from.
  absl::StatusOr<Slot> Read(int32_t slot) const;
  absl::Status CheckChain(const StepPlan& plan, const AttentionRun& run, KeyInterval keys) const;
  ChosenToken Choose(const TokenChoice& choice) const;
  std::vector<float> TargetLogprobsOf(const TokenChoice& choice) const;
  float DisagreementOf(const std::vector<int32_t>& rows) const;
  void Forget(const StepPlan& plan);
  int32_t CountChoosingRequests(const StepPlan& plan);

  const SimulatedModelOptions options_;
  ModelInfo info_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> states_;                    // of the present step's rows
  absl::flat_hash_map<int32_t, KvMove> moves_;      // of the present step, by to_slot
  absl::flat_hash_set<const void*> step_requests_;  // kept for its memory
  std::string first_error_;
  int64_t num_steps_ = 0;
  int64_t num_rows_ = 0;
  int64_t num_failed_steps_ = 0;
  int64_t num_tokens_ = 0;
  int32_t max_choosing_requests_ = 0;
  int64_t num_failed_choosing_requests_ = 0;
};

}  // namespace chorus
