#include "tests/support/fake_model_runner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "core/base/status_macros.h"
#include "tests/support/fake_probes.h"

namespace chorus {
namespace fake_model {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  uint64_t x = hash * 0x9e3779b97f4a7c15ull + value + 0x7f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// In [0, 1).
double Uniform(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }

double LogSumExp(const std::vector<float>& row) {
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0.0;
  for (float logit : row) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

float WeightOf(absl::Span<const float> weights, size_t i, size_t num_rows) {
  return weights.empty() ? 1.0f / static_cast<float>(num_rows) : weights[i];
}

// Bias, bans and penalties; minus infinity for what may not be drawn.
std::vector<float> Adjust(std::vector<float> row, const TokenChoice& choice) {
  const SamplingParams& sampling = *choice.sampling;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (const auto& [token_id, bias] : sampling.logit_bias) row[token_id] += bias;
  std::set<int32_t> seen(choice.prompt_tokens->begin(), choice.prompt_tokens->end());
  seen.insert(choice.generated_tokens->begin(), choice.generated_tokens->end());
  for (int32_t token_id : seen) {
    float& logit = row[token_id];
    logit = logit > 0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
  }
  for (int32_t token_id : *choice.generated_tokens) row[token_id] -= sampling.frequency_penalty;
  const std::set<int32_t> generated(choice.generated_tokens->begin(),
                                    choice.generated_tokens->end());
  for (int32_t token_id : generated) row[token_id] -= sampling.presence_penalty;
  if (!sampling.allowed_token_ids.empty()) {
    const std::set<int32_t> allowed(sampling.allowed_token_ids.begin(),
                                    sampling.allowed_token_ids.end());
    for (size_t i = 0; i < row.size(); ++i) {
      if (!allowed.contains(static_cast<int32_t>(i))) row[i] = kNever;
    }
  }
  if (choice.banned_token_ids != nullptr) {
    for (int32_t token_id : *choice.banned_token_ids) row[token_id] = kNever;
  }
  return row;
}

}  // namespace

uint64_t RowState(int32_t token_id, bool sees_itself, absl::Span<const VisibleKey> keys,
                  const SegmentScaling* scaling) {
  uint64_t state = Mix(Mix(1, token_id), sees_itself);
  if (scaling != nullptr) {
    for (float value : {scaling->temperature, scaling->scale, scaling->log_bias}) {
      state = Mix(state, std::bit_cast<uint32_t>(value));
    }
  }
  for (const VisibleKey& key : keys) {
    state = Mix(Mix(state, key.state), static_cast<uint64_t>(key.distance));
    state = Mix(state, scaling != nullptr && key.is_segment);
  }
  return state;
}

std::vector<float> LogitsOf(uint64_t state, int32_t vocab_size) {
  std::vector<float> logits(vocab_size);
  for (int32_t i = 0; i < vocab_size; ++i) {
    logits[i] = static_cast<float>(8.0 * Uniform(Mix(state, i)) - 4.0);
  }
  return logits;
}

std::vector<float> Combine(CombineRule rule, absl::Span<const float> weights,
                           const std::vector<std::vector<float>>& rows) {
  if (rule == CombineRule::kNone) return rows.front();
  const bool of_probabilities = rule == CombineRule::kProbMean || rule == CombineRule::kProbMax;
  const bool is_mean = rule == CombineRule::kLogitMean || rule == CombineRule::kProbMean;
  std::vector<float> combined;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<float> row = rows[i];
    const double log_sum = of_probabilities ? LogSumExp(row) : 0.0;
    for (float& x : row) {
      if (of_probabilities) x = static_cast<float>(std::exp(x - log_sum));
      if (is_mean) x *= WeightOf(weights, i, rows.size());
    }
    if (combined.empty()) {
      combined = std::move(row);
      continue;
    }
    for (size_t j = 0; j < row.size(); ++j) {
      combined[j] = is_mean ? combined[j] + row[j] : std::max(combined[j], row[j]);
    }
  }
  if (!of_probabilities) return combined;
  float sum = 0.0f;
  for (float x : combined) sum += x;
  for (float& x : combined) x = std::log(x / sum);
  return combined;
}

void AppendLogprobs(const std::vector<float>& row, absl::Span<const int32_t> targets,
                    std::vector<float>* logprobs) {
  const double log_sum = LogSumExp(row);
  for (const int32_t id : targets) logprobs->push_back(static_cast<float>(row[id] - log_sum));
}

ChosenToken Choose(const std::vector<float>& combined, const TokenChoice& choice) {
  std::vector<float> row = Adjust(combined, choice);
  const float temperature = choice.sampling->temperature;
  if (temperature > 0) {
    // The Gumbel trick: the largest of logit / T - log(-log u) is a draw from the softmax.
    for (size_t i = 0; i < row.size(); ++i) {
      const uint64_t hash = Mix(Mix(choice.draw_seed, choice.draw_index), i);
      row[i] =
          static_cast<float>(row[i] / temperature - std::log(-std::log(Uniform(hash) + 0x1p-54)));
    }
  }
  ChosenToken token;
  token.token_id = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
  const double log_sum = LogSumExp(combined);
  token.logprob = static_cast<float>(combined[token.token_id] - log_sum);
  for (size_t i = 0; choice.top_logprobs > 0 && i < combined.size(); ++i) {
    token.top_logprobs.push_back(
        {static_cast<int32_t>(i), static_cast<float>(combined[i] - log_sum)});
  }
  std::stable_sort(token.top_logprobs.begin(), token.top_logprobs.end(),
                   [](const auto& a, const auto& b) { return a.logprob > b.logprob; });
  if (choice.top_logprobs > 0) token.top_logprobs.resize(choice.top_logprobs);
  if (choice.want_logits) token.logits = combined;
  AppendLogprobs(combined, choice.targets, &token.target_logprobs);
  return token;
}

}  // namespace fake_model

namespace {

template <typename... Parts>
absl::Status Broken(const Parts&... parts) {
  return absl::InternalError(absl::StrCat("the plan is wrong: ", parts...));
}

}  // namespace

FakeModelRunner::FakeModelRunner(FakeModelOptions options) : options_(std::move(options)) {
  info_.name = "fake";
  info_.vocab_size = options_.vocab_size;
  info_.max_positions = options_.max_positions;
  info_.num_kv_slots = options_.num_kv_slots;
  info_.device = options_.device;
  info_.dtype = "float32";
  info_.num_layers = fake_model::kNumLayers;
  info_.num_heads = fake_model::kNumHeads;
  slots_.resize(options_.num_kv_slots);
}

absl::StatusOr<StepResult> FakeModelRunner::Run(const StepPlan& plan) {
  absl::Status hook_status;
  if (options_.before_step) hook_status = options_.before_step(plan, num_steps_);
  ++num_steps_;
  auto result = hook_status.ok() ? RunChecked(plan) : absl::StatusOr<StepResult>(hook_status);
  if (!result.ok()) {
    for (int32_t slot : plan.slots) slots_[slot].written = false;
    for (const KvMove& move : plan.attention.moves) slots_[move.to_slot].written = false;
  }
  return result;
}

absl::StatusOr<StepResult> FakeModelRunner::RunChecked(const StepPlan& plan) {
  CHORUS_RETURN_IF_ERROR(CheckShapes(plan));
  CHORUS_RETURN_IF_ERROR(CheckMoves(plan));
  CHORUS_RETURN_IF_ERROR(CheckChoices(plan));
  CHORUS_RETURN_IF_ERROR(fake_model::CheckProbes(plan));
  moves_.clear();
  for (const KvMove& move : plan.attention.moves) moves_[move.to_slot] = move;
  CHORUS_ASSIGN_OR_RETURN(const std::vector<RowPlace> places, PlaceRows(plan));
  for (int32_t slot : plan.slots) slots_[slot].written = false;
  std::vector<uint64_t> states(plan.num_rows());
  for (const RowPlace& place : places) {
    CHORUS_ASSIGN_OR_RETURN(states[place.row], StateOf(plan, place));
    slots_[plan.slots[place.row]] = {true, states[place.row], plan.positions[place.row]};
  }
  for (const KvMove& move : plan.attention.moves) slots_[move.to_slot] = Read(move.to_slot);
  StepResult result;
  for (const TokenChoice& choice : plan.choices) {
    const auto logits_of = [&](const std::vector<int32_t>& rows) {
      std::vector<std::vector<float>> logits;
      for (int32_t row : rows) {
        logits.push_back(fake_model::LogitsOf(states[row], info_.vocab_size));
      }
      return logits;
    };
    result.tokens.push_back(fake_model::Choose(
        fake_model::Combine(choice.rule, choice.weights, logits_of(choice.rows)), choice));
    result.tokens.back().disagreement =
        fake_model::DisagreementOf(logits_of(choice.compared_rows));
    for (const auto& row : logits_of(choice.target_rows)) {
      fake_model::AppendLogprobs(row, choice.targets, &result.tokens.back().target_logprobs);
    }
    if (options_.choice_status) result.tokens.back().status = options_.choice_status(choice);
    if (!options_.forced_token) continue;
    if (const auto forced = options_.forced_token(choice); forced.has_value()) {
      result.tokens.back().token_id = *forced;
    }
  }
  for (const AttentionProbe& probe : plan.probes) {
    result.probes.push_back(fake_model::ProbeOf(plan, probe));
  }
  return result;
}

// Lists of one length, everything in range, no slot written twice.
absl::Status FakeModelRunner::CheckShapes(const StepPlan& plan) const {
  const size_t num_rows = plan.token_ids.size();
  if (num_rows == 0) return Broken("no rows");
  if (plan.positions.size() != num_rows || plan.slots.size() != num_rows) {
    return Broken("lists of different lengths");
  }
  std::set<int32_t> written;
  for (size_t row = 0; row < num_rows; ++row) {
    const int32_t slot = plan.slots[row];
    if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of row ", row);
    if (!written.insert(slot).second) return Broken("slot ", slot, " is written twice");
    if (plan.token_ids[row] < 0 || plan.token_ids[row] >= info_.vocab_size) {
      return Broken("token ", plan.token_ids[row], " of row ", row);
    }
    if (plan.positions[row] < 0 || plan.positions[row] >= info_.max_positions) {
      return Broken("position ", plan.positions[row], " of row ", row);
    }
  }
  return absl::OkStatus();
}

// A run's intervals ascend and are disjoint, its table covers its keys, and each of its rows writes
// the slot that the table gives its own key.
absl::Status FakeModelRunner::CheckRun(const StepPlan& plan, const AttentionRun& run) const {
  const AttentionPlan& attention = plan.attention;
  const int32_t num_keys = run.query_begin + run.row_end - run.row_begin;
  if (run.row_begin < 0 || run.row_begin >= run.row_end || run.row_end > plan.num_rows()) {
    return Broken("rows of a run");
  }
  if (run.table_begin < 0 ||
      run.table_begin + num_keys > static_cast<int32_t>(attention.slot_table.size())) {
    return Broken("a slot table that does not reach key ", num_keys);
  }
  if (run.scaling >= static_cast<int32_t>(attention.scalings.size())) return Broken("scaling");
  if (run.interval_begin < 0 || run.interval_end < run.interval_begin ||
      run.interval_end > static_cast<int32_t>(attention.intervals.size())) {
    return Broken("intervals of a run");
  }
  int32_t end = 0;
  for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
    const KeyInterval& keys = attention.intervals[i];
    if (keys.begin < end || keys.end <= keys.begin || keys.end > num_keys) {
      return Broken("interval [", keys.begin, ", ", keys.end, ")");
    }
    end = keys.end;
  }
  for (int32_t i = 0; i < run.row_end - run.row_begin; ++i) {
    const int32_t key = run.query_begin + i;
    if (attention.slot_table[run.table_begin + key] != plan.slots[run.row_begin + i]) {
      return Broken("row ", run.row_begin + i, " does not write the slot of its key ", key);
    }
  }
  return absl::OkStatus();
}

absl::Status FakeModelRunner::CheckMoves(const StepPlan& plan) const {
  std::set<int32_t> taken(plan.slots.begin(), plan.slots.end());
  std::set<int32_t> sources;
  for (const KvMove& move : plan.attention.moves) {
    for (int32_t slot : {move.from_slot, move.to_slot}) {
      if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of a move");
    }
    if (move.distance <= 0) return Broken("a move by ", move.distance);
    if (!taken.insert(move.to_slot).second) return Broken("slot ", move.to_slot, " is moved over");
    sources.insert(move.from_slot);
  }
  for (const KvMove& move : plan.attention.moves) {
    if (sources.contains(move.to_slot)) return Broken("slot ", move.to_slot, " moves on");
  }
  return absl::OkStatus();
}

FakeModelRunner::Slot FakeModelRunner::Read(int32_t slot) const {
  const auto found = moves_.find(slot);
  if (found == moves_.end()) return slots_[slot];
  Slot moved = slots_[found->second.from_slot];
  moved.position += found->second.distance;
  return moved;
}

absl::Status FakeModelRunner::CheckChoices(const StepPlan& plan) const {
  for (const TokenChoice& choice : plan.choices) {
    if (choice.rows.empty()) return Broken("a choice without rows");
    if (choice.rule == CombineRule::kNone && choice.rows.size() != 1) return Broken("rule none");
    if (!choice.weights.empty() && choice.weights.size() != choice.rows.size()) {
      return Broken(choice.weights.size(), " weights for ", choice.rows.size(), " rows");
    }
    if (choice.sampling == nullptr || choice.prompt_tokens == nullptr ||
        choice.generated_tokens == nullptr) {
      return Broken("a choice without parameters");
    }
    for (const auto* rows : {&choice.rows, &choice.target_rows}) {
      for (int32_t row : *rows) {
        if (row < 0 || row >= plan.num_rows()) return Broken("row ", row, " of a choice");
      }
    }
    for (int32_t id : choice.targets) {
      if (id < 0 || id >= info_.vocab_size) return Broken("target ", id, " of a choice");
    }
  }
  return absl::OkStatus();
}

// Every row in exactly one run. In order of logical index, so that what a row sees comes before it,
// as all of a layer's keys are written before its attention.
absl::StatusOr<std::vector<FakeModelRunner::RowPlace>> FakeModelRunner::PlaceRows(
    const StepPlan& plan) const {
  std::vector<RowPlace> places;
  std::vector<bool> placed(plan.num_rows(), false);
  for (const AttentionRun& run : plan.attention.runs) {
    CHORUS_RETURN_IF_ERROR(CheckRun(plan, run));
    for (int32_t row = run.row_begin; row < run.row_end; ++row) {
      if (placed[row]) return Broken("row ", row, " is in two runs");
      placed[row] = true;
      places.push_back({row, run.query_begin + row - run.row_begin, &run});
    }
  }
  if (places.size() != placed.size()) return Broken("a row is in no run");
  std::stable_sort(places.begin(), places.end(),
                   [](const RowPlace& a, const RowPlace& b) { return a.query < b.query; });
  return places;
}

absl::StatusOr<uint64_t> FakeModelRunner::StateOf(const StepPlan& plan,
                                                  const RowPlace& place) const {
  const AttentionRun& run = *place.run;
  bool sees_itself = false;
  std::vector<fake_model::VisibleKey> keys;
  for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
    const KeyInterval& interval = plan.attention.intervals[i];
    for (int32_t k = interval.begin; k < interval.end && k <= place.query; ++k) {
      if (k == place.query) {
        sees_itself = true;
        continue;
      }
      const int32_t slot = plan.attention.slot_table[run.table_begin + k];
      if (slot < 0 || slot >= info_.num_kv_slots) return Broken("slot ", slot, " of key ", k);
      const Slot key = Read(slot);
      if (!key.written) {
        return Broken("query ", place.query, " reads key ", k, ", which nobody has written");
      }
      keys.push_back({key.state, plan.positions[place.row] - key.position, interval.is_segment});
    }
  }
  const SegmentScaling* scaling = run.scaling < 0 ? nullptr : &plan.attention.scalings[run.scaling];
  return fake_model::RowState(plan.token_ids[place.row], sees_itself, keys, scaling);
}

}  // namespace chorus
