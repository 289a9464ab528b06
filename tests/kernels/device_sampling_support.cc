#include "tests/kernels/device_sampling_support.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "gtest/gtest.h"

#include "core/kernels/cuda/sampling_workspace.h"
#include "core/model/device_choices.h"
#include "core/model/logit_combiner.h"
#include "core/model/random_bits.h"
#include "core/model/sampler.h"
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/test_device.h"

namespace chorus {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kBoundary = 2.5e-5;

// The logits after bias, bans and penalties, as sampler.h says.
std::vector<float> Adjusted(const TokenChoice& choice, const float* row, int32_t vocab_size) {
  const SamplingParams& sampling = *choice.sampling;
  std::vector<float> logits(row, row + vocab_size);
  const auto count_in = [](const std::vector<int32_t>* ids, int32_t id) {
    return ids == nullptr ? 0 : static_cast<int32_t>(std::count(ids->begin(), ids->end(), id));
  };
  for (int32_t id = 0; id < vocab_size; ++id) {
    float& logit = logits[id];
    const auto bias = sampling.logit_bias.find(id);
    if (bias != sampling.logit_bias.end()) logit += bias->second;
    const std::vector<int32_t>& allowed = sampling.allowed_token_ids;
    if (!allowed.empty() && count_in(&allowed, id) == 0) logit = -kInfinity;
    if (count_in(choice.banned_token_ids, id) > 0) logit = -kInfinity;
    const int32_t in_answer = count_in(choice.generated_tokens, id);
    if (in_answer + count_in(choice.prompt_tokens, id) == 0) continue;
    logit = logit > 0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
    if (in_answer > 0) {
      logit -= sampling.frequency_penalty * static_cast<float>(in_answer);
      logit -= sampling.presence_penalty;
    }
  }
  return logits;
}

template <class T>
const T& OneOf(const std::vector<T>& values, std::mt19937& random) {
  return values[random() % values.size()];
}

void ExpectNearOrSame(float actual, float expected, float limit) {
  if (std::isfinite(expected)) {
    EXPECT_NEAR(actual, expected, limit);
  } else if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(actual)) << actual;
  } else {
    EXPECT_EQ(actual, expected);
  }
}

// Log-sum-exps differ by less than (ln 2^17 * 2^-23 + 64 * 2^-24) on either side; the difference is
// rounded to float32.
float LogprobLimit(float value) { return 1.2e-5f + 0x1p-22f * std::abs(value); }

}  // namespace

TokenChoice OwnedChoice::Borrow() const {
  TokenChoice borrowed = choice;
  borrowed.sampling = &sampling;
  borrowed.prompt_tokens = &prompt;
  borrowed.generated_tokens = &generated;
  borrowed.banned_token_ids = &banned;
  return borrowed;
}

const float* StepLogits::Row(int32_t step_row) const {
  const auto found = std::find(step_rows.begin(), step_rows.end(), step_row);
  return values.data() + (found - step_rows.begin()) * vocab_size;
}

std::vector<const float*> StepLogits::Rows(const std::vector<int32_t>& of) const {
  std::vector<const float*> rows;
  for (const int32_t row : of) rows.push_back(Row(row));
  return rows;
}

StepLogits RandomLogits(int num_rows, int32_t vocab_size, float spread, bool has_odd,
                        std::mt19937& random) {
  StepLogits logits;
  logits.vocab_size = vocab_size;
  std::normal_distribution<float> normal(0.0f, spread);
  for (int row = 0; row < num_rows; ++row) {
    logits.step_rows.push_back(2 * row + 3);
    const int kind = has_odd ? static_cast<int>(random() % 8) : 0;
    for (int32_t id = 0; id < vocab_size; ++id) {
      float value = normal(random);
      if (kind == 1) value = std::round(value);  // ties, and zeros of both signs
      if (kind == 2 && random() % 3 == 0) value = -kInfinity;
      logits.values.push_back(value);
    }
    float& odd = logits.values[logits.values.size() - 1 - random() % vocab_size];
    if (kind == 3) odd = kNan;
    if (kind == 4) odd = kInfinity;
    if (kind == 5) std::fill_n(logits.values.end() - vocab_size, vocab_size, -kInfinity);
  }
  return logits;
}

OwnedChoice RandomChoice(const StepLogits& logits, std::mt19937& random) {
  OwnedChoice owned;
  TokenChoice& choice = owned.choice;
  const auto one_in = [&](unsigned n) { return random() % n == 0; };
  const auto ids = [&](int count) {  // some twice, some unknown
    std::vector<int32_t> some;
    for (int i = 0; i < count; ++i) {
      some.push_back(static_cast<int32_t>(random() % (logits.vocab_size + 3)) - 1);
    }
    return some;
  };
  const auto rows = [&](int count) {
    std::vector<int32_t> some = logits.step_rows;
    std::shuffle(some.begin(), some.end(), random);
    some.resize(std::min<size_t>(some.size(), count));
    return some;
  };
  choice.rule = static_cast<CombineRule>(random() % 5);
  choice.rows = rows(choice.rule == CombineRule::kNone ? 1 : 1 + static_cast<int>(random() % 6));
  if (choice.rule != CombineRule::kNone && one_in(2)) {
    float sum = 0.0f;
    for (size_t i = 0; i < choice.rows.size(); ++i) {
      choice.weights.push_back(i > 0 && one_in(4) ? 0.0f : static_cast<float>(1 + random() % 9));
      sum += choice.weights.back();
    }
    for (float& weight : choice.weights) weight /= sum;
  }
  SamplingParams& sampling = owned.sampling;
  sampling.temperature = OneOf<float>({0.0f, 1.0f, 0.7f, 2.0f, 100.0f, 0.05f, 1e-38f}, random);
  sampling.top_k = OneOf<int32_t>({0, 0, 1, 5, 50, 4000, 1 << 30}, random);
  sampling.top_p = OneOf<float>({1.0f, 1.0f, 0.9f, 0.5f, 1e-30f, 0.999f}, random);
  sampling.min_p = OneOf<float>({0.0f, 0.0f, 0.05f, 1.0f}, random);
  if (one_in(3)) {
    for (const int32_t id : ids(4)) sampling.logit_bias[id] = OneOf<float>({5, -5, 0.5f}, random);
  }
  if (one_in(4)) sampling.allowed_token_ids = ids(1 + static_cast<int>(random() % 40));
  if (one_in(3)) owned.banned = ids(1 + static_cast<int>(random() % 4));
  if (one_in(3)) {
    sampling.repetition_penalty = OneOf<float>({1.0f, 1.3f, 0.8f}, random);
    sampling.presence_penalty = OneOf<float>({0.0f, 0.5f, -2.0f}, random);
    sampling.frequency_penalty = OneOf<float>({0.0f, 0.3f}, random);
  }
  owned.prompt = ids(20);
  owned.generated = ids(5);
  choice.draw_seed = random();
  choice.draw_index = static_cast<int64_t>(random() % 100);
  choice.top_logprobs = OneOf<int32_t>({0, 0, 1, 5, 20}, random);
  choice.want_logits = one_in(3);
  if (one_in(3)) choice.compared_rows = rows(1 + static_cast<int>(random() % 6));
  if (one_in(3)) {
    for (int i = 0; i < 3; ++i) {
      choice.targets.push_back(static_cast<int32_t>(random() % logits.vocab_size));
    }
    choice.target_rows = rows(static_cast<int>(random() % 4));
  }
  return owned;
}

DeviceSampling SampleOnDevice(absl::Span<const TokenChoice> choices, const StepLogits& logits,
                              uint32_t seed, bool all_kernels) {
  const int32_t vocab_size = logits.vocab_size;
  const PackedChoices packed = PackChoices(choices, logits.step_rows, vocab_size);
  const int num_rows = static_cast<int>(logits.step_rows.size());
  const int num_choices = packed.num_choices();
  DeviceSampling result;
  result.combined.assign(int64_t{num_choices} * vocab_size, kNan);
  std::vector<float> changed(int64_t{packed.num_changed_rows()} * vocab_size, kNan);
  // A byte of 0xFF everywhere is NaN.
  std::vector<uint8_t> output(packed.output_bytes(), 0xFF);
  std::vector<uint8_t> workspace(
      device::SamplingWorkspaceBytes(
          {num_rows, num_choices, packed.num_changed_rows(), vocab_size}),
      0xFF);
  const auto start = [&](DeviceKernels& kernels, const test::Addresses& at) {
    return kernels.Sample({.in = packed.InputsAt(at(packed.bytes().data())),
                           .out = packed.OutputsAt(at(output.data())),
                           .logits = at(logits.values.data()),
                           .num_rows = num_rows,
                           .num_choices = num_choices,
                           .num_changed_rows = packed.num_changed_rows(),
                           .vocab_size = vocab_size,
                           .combined = at(result.combined.data()),
                           .changed = at(changed.data()),
                           .workspace = at(workspace.data()),
                           .combines = packed.combines() || all_kernels,
                           .adjusts = packed.adjusts() || all_kernels,
                           .compares = packed.compares() || all_kernels});
  };
  EXPECT_EQ(test::RunOnDevice({device::ReadOnly(logits.values), device::Writable(workspace),
                               device::ReadOnly(packed.bytes()), device::Writable(result.combined),
                               device::Writable(changed), device::Writable(output)},
                              seed, start),
            absl::OkStatus());
  result.chosen = UnpackChosen(choices, packed, output.data(), result.combined.data(), vocab_size);
  return result;
}

std::vector<float> CombineOnCpu(const TokenChoice& choice, const StepLogits& logits) {
  std::vector<float> combined(logits.vocab_size);
  CombineLogits(choice.rule, logits.Rows(choice.rows), choice.weights, logits.vocab_size,
                combined.data());
  return combined;
}

bool IsNearBoundary(const TokenChoice& choice, const float* row, int32_t vocab_size) {
  const SamplingParams& sampling = *choice.sampling;
  if (sampling.temperature == 0.0f) return false;
  const std::vector<float> logits = Adjusted(choice, row, vocab_size);
  const float largest = *std::max_element(logits.begin(), logits.end());
  const double inverse = InverseTemperature(sampling.temperature);
  const auto mass = [&](int32_t id) { return std::exp((double{logits[id]} - largest) * inverse); };
  std::vector<int32_t> ids(vocab_size);
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (sampling.top_k > 0 && sampling.top_k < vocab_size) ids.resize(sampling.top_k);
  const auto total_of = [&] {
    double total = 0.0;
    for (const int32_t id : ids) total += mass(id);
    return total;
  };
  if (sampling.top_p < 1.0f) {
    const double total = total_of();
    double held = 0.0;
    for (size_t i = 0; i < ids.size(); ++i) {
      held += mass(ids[i]);
      if (std::abs(held - sampling.top_p * total) < kBoundary * total) return true;
      if (held >= sampling.top_p * total) ids.resize(i + 1);
    }
  }
  for (const int32_t id : ids) {
    const bool is_exact = logits[id] == largest;  // exactly 1 on both sides
    if (!is_exact && std::abs(mass(id) - sampling.min_p) < kBoundary * sampling.min_p) return true;
  }
  std::erase_if(ids, [&](int32_t id) { return mass(id) < sampling.min_p; });
  std::sort(ids.begin(), ids.end());
  const double total = total_of();
  const double drawn =
      total * RandomUniform(choice.draw_seed, static_cast<uint64_t>(choice.draw_index));
  double passed = 0.0;
  for (const int32_t id : ids) {
    passed += mass(id);
    if (ids.size() > 1 && std::abs(passed - drawn) < kBoundary * total) return true;
  }
  return false;
}

bool ExpectSameChoice(const ChosenToken& actual, const TokenChoice& choice,
                      const StepLogits& logits, const std::vector<float>& combined) {
  const int32_t vocab_size = logits.vocab_size;
  ChosenToken expected = SampleToken(choice, combined.data(), vocab_size);
  for (const float* row : logits.Rows(choice.target_rows)) {
    AppendLogprobs(row, vocab_size, choice.targets, &expected.target_logprobs);
  }
  EXPECT_EQ(actual.status, expected.status);
  const bool is_near = expected.status.ok() && IsNearBoundary(choice, combined.data(), vocab_size);
  if (!is_near) {
    EXPECT_EQ(actual.token_id, expected.token_id);
    ExpectNearOrSame(actual.logprob, expected.logprob, LogprobLimit(expected.logprob));
  }
  EXPECT_EQ(actual.top_logprobs.size(), expected.top_logprobs.size());
  for (size_t i = 0; i < std::min(actual.top_logprobs.size(), expected.top_logprobs.size()); ++i) {
    EXPECT_EQ(actual.top_logprobs[i].token_id, expected.top_logprobs[i].token_id);
    ExpectNearOrSame(actual.top_logprobs[i].logprob, expected.top_logprobs[i].logprob,
                     LogprobLimit(expected.top_logprobs[i].logprob));
  }
  EXPECT_EQ(actual.target_logprobs.size(), expected.target_logprobs.size());
  for (size_t i = 0; i < std::min(actual.target_logprobs.size(), expected.target_logprobs.size());
       ++i) {
    ExpectNearOrSame(actual.target_logprobs[i], expected.target_logprobs[i],
                     LogprobLimit(expected.target_logprobs[i]));
  }
  // Of float32 terms of up to (number of rows) * ln(number) + |y| each; both sides round.
  const float disagreement = choice.compared_rows.empty()
                                 ? 0.0f
                                 : Disagreement(logits.Rows(choice.compared_rows), vocab_size);
  ExpectNearOrSame(actual.disagreement, disagreement, 3e-5f);
  return is_near;
}

}  // namespace chorus
