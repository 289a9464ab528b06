#include "tests/support/simulated_model_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "tests/support/fake_probes.h"

namespace chorus {
namespace {

constexpr int32_t kFirstOrdinaryToken = 4;

// Never 0.
uint64_t Mix(uint64_t hash, uint64_t value) {
  uint64_t x = hash * 0x9e3779b97f4a7c15ull + value + 0x7f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return (x ^ (x >> 31)) | 1;
}

template <typename... Parts>
absl::Status Broken(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("the plan is wrong: ", parts...));
}

int64_t CountKeys(const AttentionPlan& attention) {
  int64_t count = 0;
  for (const AttentionRun& run : attention.runs) {
    int64_t keys = 0;
    for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
      keys += attention.intervals[i].end - attention.intervals[i].begin;
    }
    count += keys * (run.row_end - run.row_begin);
  }
  return count;
}

}  // namespace

SimulatedModelRunner::SimulatedModelRunner(SimulatedModelOptions options)
    : options_(std::move(options)), slots_(options_.num_kv_slots) {
  info_.name = "simulated";
  info_.vocab_size = options_.vocab_size;
  info_.max_positions = options_.max_positions;
  info_.num_kv_slots = options_.num_kv_slots;
  info_.device = "cpu";
  info_.dtype = "float32";
  info_.num_layers = fake_model::kNumLayers;
  info_.num_heads = fake_model::kNumHeads;
}

absl::Duration SimulatedModelRunner::CostOf(int64_t rows, int64_t keys) const {
  return options_.per_step + rows * options_.per_row + keys * options_.per_key;
}

absl::StatusOr<StepResult> SimulatedModelRunner::Run(const StepPlan& plan) {
  const int64_t step = num_steps_++;
  num_rows_ += plan.num_rows();
  if (options_.on_time) options_.on_time(CostOf(plan.num_rows(), CountKeys(plan.attention)));
  if (options_.fails && options_.fails(step)) {
    ++num_failed_steps_;
    num_failed_choosing_requests_ += CountChoosingRequests(plan);
    Forget(plan);
    return absl::InternalError("a step that fails");
  }
  absl::Status status = CheckShapes(plan);
  if (status.ok()) status = CheckMoves(plan);
  if (status.ok()) status = fake_model::CheckProbes(plan);
  if (status.ok()) {
    // What a row sees stands before it in its sequence, or is a segment, which stands no later
    // where it is computed than where it is used.
    std::vector<const AttentionRun*> runs;
    for (const AttentionRun& run : plan.attention.runs) runs.push_back(&run);
    std::stable_sort(runs.begin(), runs.end(), [](const auto* a, const auto* b) {
      return a->query_begin < b->query_begin;
    });
    for (const AttentionRun* run : runs) status.Update(RunRows(plan, *run));
  }
  for (const KvMove& move : plan.attention.moves) {
    if (auto moved = Read(move.to_slot); moved.ok()) slots_[move.to_slot] = *moved;
  }
  if (!status.ok()) {
    if (first_error_.empty()) first_error_ = std::string(status.message());
    Forget(plan);
    return status;
  }
  max_choosing_requests_ = std::max(max_choosing_requests_, CountChoosingRequests(plan));
  StepResult result;
  for (const TokenChoice& choice : plan.choices) {
    result.tokens.push_back(Choose(choice));
    if (choice.targets.empty()) ++num_tokens_;
  }
  for (const AttentionProbe& probe : plan.probes) {
    result.probes.push_back(fake_model::ProbeOf(plan, probe));
  }
  return result;
}

void SimulatedModelRunner::Forget(const StepPlan& plan) {
  for (int32_t slot : plan.slots) slots_[slot].state = 0;
  for (const KvMove& move : plan.attention.moves) slots_[move.to_slot].state = 0;
}

int32_t SimulatedModelRunner::CountChoosingRequests(const StepPlan& plan) {
  step_requests_.clear();
  for (const TokenChoice& choice : plan.choices) step_requests_.insert(choice.sampling);
  return static_cast<int32_t>(step_requests_.size());
}

absl::Status SimulatedModelRunner::CheckShapes(const StepPlan& plan) {
  const size_t num_rows = plan.token_ids.size();
  if (num_rows == 0 || plan.positions.size() != num_rows || plan.slots.size() != num_rows) {
    return Broken("lists of different lengths or none");
  }
  for (size_t row = 0; row < num_rows; ++row) {
    const int32_t slot = plan.slots[row];
    if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of row ", row);
    if (std::exchange(slots_[slot].written_in_step, num_steps_) == num_steps_) {
      return Broken("slot ", slot, " is written twice");
    }
    slots_[slot].state = 0;
    if (plan.positions[row] < 0 || plan.positions[row] >= info_.max_positions) {
      return Broken("position ", plan.positions[row], " of row ", row);
    }
  }
  for (int32_t slot : plan.attention.slot_table) {
    if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of a table");
  }
  states_.assign(num_rows, 0);
  return absl::OkStatus();
}

absl::Status SimulatedModelRunner::CheckMoves(const StepPlan& plan) {
  moves_.clear();
  for (const KvMove& move : plan.attention.moves) {
    for (int32_t slot : {move.from_slot, move.to_slot}) {
      if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of a move");
    }
    if (std::exchange(slots_[move.to_slot].written_in_step, num_steps_) == num_steps_) {
      return Broken("slot ", move.to_slot, " is moved over");
    }
    moves_[move.to_slot] = move;
  }
  for (const KvMove& move : plan.attention.moves) {
    if (moves_.contains(move.from_slot)) return Broken("slot ", move.from_slot, " moves on");
  }
  return absl::OkStatus();
}

absl::StatusOr<SimulatedModelRunner::Slot> SimulatedModelRunner::Read(int32_t slot) const {
  Slot read = slots_[slot];
  const auto move = moves_.empty() ? moves_.end() : moves_.find(slot);
  if (move != moves_.end()) {
    read = slots_[move->second.from_slot];
    read.position += move->second.distance;
    read.written_in_step = num_steps_;
  }
  if (read.state == 0) return Broken("slot ", slot, " is read, which nobody has written");
  return read;
}

absl::Status SimulatedModelRunner::RunRows(const StepPlan& plan, const AttentionRun& run) {
  const AttentionPlan& attention = plan.attention;
  for (int32_t row = run.row_begin; row < run.row_end; ++row) {
    const int32_t query = run.query_begin + row - run.row_begin;
    uint64_t state = Mix(plan.token_ids[row], run.scaling >= 0);
    uint64_t predecessor = 0;
    for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
      KeyInterval keys = attention.intervals[i];
      const bool holds_row = keys.begin <= query && query < keys.end;
      keys.end = std::min(keys.end, query);  // what it sees before itself
      if (holds_row) state = Mix(state, 1);
      if (keys.begin >= keys.end) continue;
      const int32_t last_slot = attention.slot_table[run.table_begin + keys.end - 1];
      CHORUS_ASSIGN_OR_RETURN(const Slot last, Read(last_slot));
      const int32_t distance = plan.positions[row] - last.position;
      state = Mix(Mix(state, last.state), static_cast<uint64_t>(distance));
      if (holds_row) predecessor = last.state;
      if ((num_rows_ + row) % options_.check_period == 0) {
        CHORUS_RETURN_IF_ERROR(CheckChain(plan, run, keys));
      }
    }
    states_[row] = state;
    slots_[plan.slots[row]] = {state, predecessor, plan.positions[row], num_steps_};
  }
  return absl::OkStatus();
}

absl::Status SimulatedModelRunner::CheckChain(const StepPlan& plan, const AttentionRun& run,
                                              KeyInterval keys) const {
  uint64_t before = 0;
  for (int32_t k = keys.begin; k < keys.end; ++k) {
    CHORUS_ASSIGN_OR_RETURN(const Slot key,
                            Read(plan.attention.slot_table[run.table_begin + k]));
    if (k > keys.begin && key.predecessor != 0 && key.predecessor != before) {
      return Broken("key ", k, " was not computed after key ", k - 1, " as it now is");
    }
    before = key.state;
  }
  return absl::OkStatus();
}

// 0 if all are in the same state; else between 0 and log2 of their number, as the states decide.
float SimulatedModelRunner::DisagreementOf(const std::vector<int32_t>& rows) const {
  uint64_t hash = 1;
  bool differ = false;
  for (int32_t row : rows) {
    hash = Mix(hash, states_[row]);
    differ = differ || states_[row] != states_[rows[0]];
  }
  if (!differ) return 0.0f;
  return static_cast<float>(hash >> 40) * 0x1p-24f * std::log2(static_cast<float>(rows.size()));
}

// Of the combined row, then of each row: a hash of the states and the target.
std::vector<float> SimulatedModelRunner::TargetLogprobsOf(const TokenChoice& choice) const {
  std::vector<float> logprobs;
  const auto append = [&](absl::Span<const int32_t> rows) {
    uint64_t hash = 1;
    for (int32_t row : rows) hash = Mix(hash, states_[row]);
    for (int32_t target : choice.targets) {
      logprobs.push_back(-static_cast<float>(Mix(hash, target) >> 40) * 0x1p-24f);
    }
  };
  append(choice.rows);
  for (const int32_t row : choice.target_rows) append({&row, 1});
  return logprobs;
}

ChosenToken SimulatedModelRunner::Choose(const TokenChoice& choice) const {
  uint64_t hash = Mix(choice.draw_seed, static_cast<uint64_t>(choice.draw_index));
  for (int32_t row : choice.rows) hash = Mix(hash, states_[row]);
  ChosenToken token;
  const auto is_banned = [&](int32_t token_id) {
    const std::vector<int32_t>* banned = choice.banned_token_ids;
    return banned != nullptr &&
           std::find(banned->begin(), banned->end(), token_id) != banned->end();
  };
  token.token_id = options_.eos_token_id;
  const bool ends =
      options_.eos_period > 0 && (hash >> 20) % static_cast<uint64_t>(options_.eos_period) == 0;
  const auto num_ordinary = static_cast<uint64_t>(options_.vocab_size - kFirstOrdinaryToken);
  for (bool go_on = !ends; go_on || is_banned(token.token_id); go_on = false) {
    hash = Mix(hash, 1);
    token.token_id = kFirstOrdinaryToken + static_cast<int32_t>((hash >> 20) % num_ordinary);
  }
  token.logprob = -static_cast<float>(hash >> 40) * 0x1p-24f;
  token.disagreement = DisagreementOf(choice.compared_rows);
  token.target_logprobs = TargetLogprobsOf(choice);
  return token;
}

}  // namespace chorus
