#include "core/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"

#include "core/base/check.h"
#include "core/model/logit_math.h"
#include "core/model/random_bits.h"

namespace chorus {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

void ApplyBiasAndBans(const TokenChoice& choice, std::vector<float>& logits) {
  const auto is_known = [&](int32_t id) {
    return id >= 0 && id < static_cast<int32_t>(logits.size());
  };
  for (const auto& [id, bias] : choice.sampling->logit_bias) {
    if (is_known(id)) logits[id] += bias;
  }
  const std::vector<int32_t>& allowed = choice.sampling->allowed_token_ids;
  if (!allowed.empty()) {
    std::vector<float> kept(logits.size(), kMinusInfinity);
    for (const int32_t id : allowed) {
      if (is_known(id)) kept[id] = logits[id];
    }
    logits = std::move(kept);
  }
  if (choice.banned_token_ids == nullptr) return;
  for (const int32_t id : *choice.banned_token_ids) {
    if (is_known(id)) logits[id] = kMinusInfinity;
  }
}

void ApplyPenalties(const TokenChoice& choice, std::vector<float>& logits) {
  const SamplingParams& sampling = *choice.sampling;
  if (!HasPenalties(sampling)) return;
  std::unordered_map<int32_t, int32_t> counts;  // of the answer's tokens
  std::unordered_set<int32_t> seen;             // of prompt and answer
  const auto collect = [&](const std::vector<int32_t>* tokens, bool is_answer) {
    if (tokens == nullptr) return;
    for (const int32_t id : *tokens) {
      if (id < 0 || id >= static_cast<int32_t>(logits.size())) continue;
      seen.insert(id);
      if (is_answer) ++counts[id];
    }
  };
  collect(choice.prompt_tokens, /*is_answer=*/false);
  collect(choice.generated_tokens, /*is_answer=*/true);
  for (const int32_t id : seen) {
    float& logit = logits[id];
    logit =
        logit > 0.0f ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
  }
  for (const auto& [id, count] : counts) {
    logits[id] -= sampling.frequency_penalty * static_cast<float>(count);
    logits[id] -= sampling.presence_penalty;
  }
}

// The largest entry, ties to the lowest id.
int32_t Greedy(const float* logits, int32_t count, float largest) {
  return static_cast<int32_t>(std::find(logits, logits + count, largest) - logits);
}

// Orders ids by falling logit, ties by rising id.
struct Better {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

// Cuts `ids` to the shortest start, in order of Better, that holds `top_p` of their probability.
// Sorts in growing pieces: the start is usually short, the vocabulary long.
void KeepTopP(double top_p, const Better& better, const std::vector<float>& probabilities,
              std::vector<int32_t>& ids) {
  double total = 0.0;
  for (const int32_t id : ids) total += probabilities[id];
  double held = 0.0;
  size_t sorted = 0;
  while (sorted < ids.size()) {
    const size_t end = std::min(ids.size(), std::max<size_t>(64, 4 * sorted));
    if (end < ids.size()) {
      std::nth_element(ids.begin() + sorted, ids.begin() + end, ids.end(), better);
    }
    std::sort(ids.begin() + sorted, ids.begin() + end, better);
    for (; sorted < end; ++sorted) {
      held += probabilities[ids[sorted]];
      if (held >= top_p * total) {
        ids.resize(sorted + 1);
        return;
      }
    }
  }
}

// The ids that top_k, top_p and min_p leave, rising.
std::vector<int32_t> Truncate(const SamplingParams& sampling, const float* logits,
                              const std::vector<float>& probabilities) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    if (probabilities[id] > 0.0f) ids.push_back(static_cast<int32_t>(id));
  }
  const Better better{logits};
  const size_t top_k = static_cast<size_t>(sampling.top_k);
  if (top_k > 0 && top_k < ids.size()) {
    std::nth_element(ids.begin(), ids.begin() + top_k, ids.end(), better);
    ids.resize(top_k);
  }
  if (sampling.top_p < 1.0f) KeepTopP(sampling.top_p, better, probabilities, ids);
  // The best one's probability is exp(0) = 1 in these units.
  std::erase_if(ids, [&](int32_t id) { return probabilities[id] < sampling.min_p; });
  std::sort(ids.begin(), ids.end());
  return ids;
}

// `uniform` in [0, 1) falls into one id's share of the total.
int32_t Draw(const std::vector<int32_t>& ids, const std::vector<float>& probabilities,
             double uniform) {
  double total = 0.0;
  for (const int32_t id : ids) total += probabilities[id];
  double passed = 0.0;
  for (const int32_t id : ids) {
    passed += probabilities[id];
    if (passed > uniform * total) return id;
  }
  return ids.back();
}

int32_t DrawToken(const TokenChoice& choice, const float* logits, int32_t count, float largest) {
  const SamplingParams& sampling = *choice.sampling;
  std::vector<float> probabilities(count);
  ExpShifted(logits, count, largest, InverseTemperature(sampling.temperature),
             probabilities.data());
  const std::vector<int32_t> ids = Truncate(sampling, logits, probabilities);
  return Draw(ids, probabilities,
              RandomUniform(choice.draw_seed, static_cast<uint64_t>(choice.draw_index)));
}

// The `wanted` largest entries of the row, best first, ties to the lowest id.
std::vector<TokenLogprob> TopLogprobs(const float* row, int32_t count, int32_t wanted,
                                      double log_sum) {
  std::vector<int32_t> best;
  const Better better{row};
  const size_t limit = static_cast<size_t>(std::clamp(wanted, 0, count));
  for (int32_t id = 0; id < count && limit > 0; ++id) {
    if (best.size() == limit && !better(id, best.back())) continue;
    if (best.size() == limit) best.pop_back();
    best.insert(std::upper_bound(best.begin(), best.end(), id, better), id);
  }
  std::vector<TokenLogprob> result;
  for (const int32_t id : best) {
    result.push_back({id, static_cast<float>(double{row[id]} - log_sum)});
  }
  return result;
}

void AppendLogprobs(const float* row, const std::vector<int32_t>& targets, double log_sum,
                    std::vector<float>* logprobs) {
  for (const int32_t id : targets) {
    logprobs->push_back(static_cast<float>(double{row[id]} - log_sum));
  }
}

}  // namespace

bool HasPenalties(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

bool ChangesLogits(const TokenChoice& choice) {
  const SamplingParams& sampling = *choice.sampling;
  return !sampling.logit_bias.empty() || !sampling.allowed_token_ids.empty() ||
         (choice.banned_token_ids != nullptr && !choice.banned_token_ids->empty()) ||
         HasPenalties(sampling);
}

float InverseTemperature(float temperature) {
  return static_cast<float>(std::min(1.0 / double{temperature}, 1e30));
}

absl::Status NoTokenLeftError() {
  return absl::InvalidArgumentError(
      "sampling.allowed_token_ids: no token is left "
      "to choose from");
}
absl::Status LogitsNotFiniteError() { return absl::InternalError("the logits are not finite"); }
absl::Status BiasedLogitsNotFiniteError() {
  return absl::InternalError("the biased logits are not finite");
}

ChosenToken SampleToken(const TokenChoice& choice, const float* row, int32_t vocab_size) {
  CHECK(choice.sampling != nullptr && vocab_size > 0);
  ChosenToken chosen;
  if (choice.want_logits) chosen.logits.assign(row, row + vocab_size);
  const double log_sum = LogSumExp(row, vocab_size);
  if (!std::isfinite(log_sum)) {
    chosen.status = LogitsNotFiniteError();
    return chosen;
  }
  std::vector<float> changed;
  const float* logits = row;
  if (ChangesLogits(choice)) {
    changed.assign(row, row + vocab_size);
    ApplyBiasAndBans(choice, changed);
    ApplyPenalties(choice, changed);
    logits = changed.data();
  }
  const float largest = MaxValue(logits, vocab_size);
  if (!std::isfinite(largest)) {
    chosen.status = largest == kMinusInfinity ? NoTokenLeftError() : BiasedLogitsNotFiniteError();
    return chosen;
  }
  chosen.token_id = choice.sampling->temperature == 0.0f
                        ? Greedy(logits, vocab_size, largest)
                        : DrawToken(choice, logits, vocab_size, largest);
  chosen.logprob = static_cast<float>(double{row[chosen.token_id]} - log_sum);
  chosen.top_logprobs = TopLogprobs(row, vocab_size, choice.top_logprobs, log_sum);
  AppendLogprobs(row, choice.targets, log_sum, &chosen.target_logprobs);
  return chosen;
}

void AppendLogprobs(const float* row, int32_t vocab_size, const std::vector<int32_t>& targets,
                    std::vector<float>* logprobs) {
  if (targets.empty()) return;
  const double log_sum = LogSumExp(row, vocab_size);
  AppendLogprobs(row, targets,
                 std::isfinite(log_sum) ? log_sum : std::numeric_limits<double>::quiet_NaN(),
                 logprobs);
}

}  // namespace chorus
