#include "core/model/device_choices.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/base/check.h"
#include "core/model/random_bits.h"
#include "core/model/sampler.h"

namespace chorus {
namespace {

using device::ChoiceStatus;
using device::DeviceChoice;
using device::IndexRange;
using device::LogitRule;

constexpr int64_t kAlignment = 16;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

LogitRule RuleOf(CombineRule rule) {
  switch (rule) {
    case CombineRule::kNone:
      return LogitRule::kNone;
    case CombineRule::kLogitMean:
      return LogitRule::kLogitMean;
    case CombineRule::kProbMean:
      return LogitRule::kProbMean;
    case CombineRule::kProbMax:
      return LogitRule::kProbMax;
    case CombineRule::kLogitMax:
      return LogitRule::kLogitMax;
  }
  CHECK(false);
}

// Appends `added` to an array; returns where.
template <class T>
IndexRange Append(const std::vector<T>& added, std::vector<T>& array) {
  const int32_t begin = static_cast<int32_t>(array.size());
  array.insert(array.end(), added.begin(), added.end());
  return {begin, static_cast<int32_t>(array.size())};
}

absl::Status StatusOf(ChoiceStatus status) {
  switch (status) {
    case ChoiceStatus::kOk:
      return absl::OkStatus();
    case ChoiceStatus::kNoTokenLeft:
      return NoTokenLeftError();
    case ChoiceStatus::kNotFinite:
      return LogitsNotFiniteError();
    case ChoiceStatus::kBiasedNotFinite:
      return BiasedLogitsNotFiniteError();
  }
  CHECK(false);
}

}  // namespace

class ChoicePacker {
 public:
  ChoicePacker(absl::Span<const int32_t> logit_rows, int32_t vocab_size)
      : logit_rows_(logit_rows), vocab_size_(vocab_size) {}

  void Add(const TokenChoice& choice);
  PackedChoices Pack() const;

 private:
  bool IsKnown(int32_t id) const { return id >= 0 && id < vocab_size_; }
  IndexRange AddRows(const std::vector<int32_t>& step_rows);
  IndexRange AddIds(const std::vector<int32_t>& ids);  // known ones, each once
  void AddChanges(const TokenChoice& choice, DeviceChoice& packed);
  IndexRange AddCounts(const TokenChoice& choice);
  static void SetSampling(const TokenChoice& choice, DeviceChoice& packed);

  const absl::Span<const int32_t> logit_rows_;
  const int32_t vocab_size_;
  std::vector<DeviceChoice> choices_;
  std::vector<int32_t> row_indices_;
  std::vector<float> weights_;
  std::vector<device::TokenBias> biases_;
  std::vector<device::TokenCount> counts_;
  std::vector<int32_t> token_ids_;
  int32_t num_top_ = 0, num_targets_ = 0;  // of the output
  int32_t num_changed_rows_ = 0;
};

IndexRange ChoicePacker::AddRows(const std::vector<int32_t>& step_rows) {
  CHECK(step_rows.size() <= device::kMaxRowsOfChoice);
  std::vector<int32_t> rows;
  for (const int32_t row : step_rows) {
    const auto found = std::lower_bound(logit_rows_.begin(), logit_rows_.end(), row);
    CHECK(found != logit_rows_.end() && *found == row);
    rows.push_back(static_cast<int32_t>(found - logit_rows_.begin()));
  }
  return Append(rows, row_indices_);
}

IndexRange ChoicePacker::AddIds(const std::vector<int32_t>& ids) {
  std::vector<int32_t> known;
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(known),
               [&](int32_t id) { return IsKnown(id); });
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return Append(known, token_ids_);
}

IndexRange ChoicePacker::AddCounts(const TokenChoice& choice) {
  std::map<int32_t, int32_t> counts;  // of prompt and answer; how often in the answer
  const auto collect = [&](const std::vector<int32_t>* tokens, int32_t count) {
    if (tokens == nullptr) return;
    for (const int32_t id : *tokens) {
      if (IsKnown(id)) counts[id] += count;
    }
  };
  collect(choice.prompt_tokens, 0);
  collect(choice.generated_tokens, 1);
  std::vector<device::TokenCount> added;
  for (const auto& [id, count] : counts) added.push_back({id, count});
  return Append(added, counts_);
}

void ChoicePacker::AddChanges(const TokenChoice& choice, DeviceChoice& packed) {
  const SamplingParams& sampling = *choice.sampling;
  if (!ChangesLogits(choice)) return;
  std::vector<device::TokenBias> biases;
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (IsKnown(id)) biases.push_back({id, bias});
  }
  packed.biases = Append(biases, biases_);
  packed.has_allowed = sampling.allowed_token_ids.empty() ? 0 : 1;
  packed.allowed = AddIds(sampling.allowed_token_ids);
  if (choice.banned_token_ids != nullptr) packed.banned = AddIds(*choice.banned_token_ids);
  if (HasPenalties(sampling)) packed.counted = AddCounts(choice);
  packed.repetition_penalty = sampling.repetition_penalty;
  packed.presence_penalty = sampling.presence_penalty;
  packed.frequency_penalty = sampling.frequency_penalty;
  packed.changed_row = num_changed_rows_++;
}

void ChoicePacker::SetSampling(const TokenChoice& choice, DeviceChoice& packed) {
  const SamplingParams& sampling = *choice.sampling;
  if (sampling.temperature == 0.0f) return;
  packed.inverse_temperature = InverseTemperature(sampling.temperature);
  packed.top_k = sampling.top_k;
  packed.min_p = sampling.min_p;
  if (sampling.top_p < 1.0f) {
    packed.top_p = static_cast<uint64_t>(std::ldexp(double{sampling.top_p}, 64));
    packed.top_p = std::max<uint64_t>(packed.top_p, 1);
  }
  const uint64_t bits = RandomBits(choice.draw_seed, static_cast<uint64_t>(choice.draw_index));
  packed.draw = bits >> 11 << 11;  // RandomUniform has 53 bits
}

void ChoicePacker::Add(const TokenChoice& choice) {
  CHECK(choice.sampling != nullptr && !choice.rows.empty());
  CHECK(choice.rule != CombineRule::kNone || choice.rows.size() == 1);
  CHECK(choice.weights.empty() || choice.weights.size() == choice.rows.size());
  DeviceChoice packed;
  packed.rule = RuleOf(choice.rule);
  packed.rows = AddRows(choice.rows);
  packed.compared_rows = AddRows(choice.compared_rows);
  packed.target_rows = AddRows(choice.target_rows);
  if (!choice.weights.empty()) packed.weights_begin = Append(choice.weights, weights_).begin;
  AddChanges(choice, packed);
  SetSampling(choice, packed);
  packed.targets = Append(choice.targets, token_ids_);
  packed.wants_logits = choice.want_logits ? 1 : 0;
  packed.top_logprobs =
      std::clamp(choice.top_logprobs, 0, std::min(vocab_size_, device::kMaxTopOfChoice));
  packed.top_begin = num_top_;
  packed.target_begin = num_targets_;
  num_top_ += packed.top_logprobs;
  num_targets_ += static_cast<int32_t>(choice.targets.size() * (1 + choice.target_rows.size()));
  choices_.push_back(packed);
}

PackedChoices ChoicePacker::Pack() const {
  PackedChoices packed;
  const auto place = [&](const auto& array, int64_t& begin) {
    begin = Aligned(static_cast<int64_t>(packed.bytes_.size()));
    const size_t bytes = array.size() * sizeof(array[0]);
    packed.bytes_.resize(begin + bytes);
    if (bytes > 0) std::memcpy(packed.bytes_.data() + begin, array.data(), bytes);
  };
  place(choices_, packed.choices_);
  place(row_indices_, packed.row_indices_);
  place(weights_, packed.weights_);
  place(biases_, packed.biases_);
  place(counts_, packed.counts_);
  place(token_ids_, packed.token_ids_);
  packed.num_choices_ = static_cast<int32_t>(choices_.size());
  packed.num_changed_rows_ = num_changed_rows_;
  packed.top_logprobs_ = Aligned(packed.num_choices_ * int64_t{sizeof(device::DeviceChosen)});
  packed.target_logprobs_ =
      packed.top_logprobs_ + Aligned(num_top_ * int64_t{sizeof(device::DeviceLogprob)});
  packed.output_bytes_ = packed.target_logprobs_ + Aligned(num_targets_ * int64_t{sizeof(float)});
  for (const DeviceChoice& choice : choices_) {
    packed.combines_ |= choice.rule != LogitRule::kNone || choice.wants_logits != 0;
    packed.adjusts_ |= choice.rule == LogitRule::kProbMean || choice.rule == LogitRule::kProbMax ||
                       choice.changed_row >= 0;
    packed.compares_ |= choice.compared_rows.end > choice.compared_rows.begin;
  }
  return packed;
}

device::ChoiceInputs PackedChoices::InputsAt(const void* base) const {
  const uint8_t* begin = static_cast<const uint8_t*>(base);
  device::ChoiceInputs in;
  in.choices = reinterpret_cast<const DeviceChoice*>(begin + choices_);
  in.row_indices = reinterpret_cast<const int32_t*>(begin + row_indices_);
  in.weights = reinterpret_cast<const float*>(begin + weights_);
  in.biases = reinterpret_cast<const device::TokenBias*>(begin + biases_);
  in.counts = reinterpret_cast<const device::TokenCount*>(begin + counts_);
  in.token_ids = reinterpret_cast<const int32_t*>(begin + token_ids_);
  return in;
}

device::ChoiceOutputs PackedChoices::OutputsAt(void* base) const {
  uint8_t* begin = static_cast<uint8_t*>(base);
  return {reinterpret_cast<device::DeviceChosen*>(begin),
          reinterpret_cast<device::DeviceLogprob*>(begin + top_logprobs_),
          reinterpret_cast<float*>(begin + target_logprobs_)};
}

PackedChoices PackChoices(absl::Span<const TokenChoice> choices,
                          absl::Span<const int32_t> logit_rows, int32_t vocab_size) {
  CHECK(vocab_size > 0 && vocab_size <= device::kMaxVocabSize);
  ChoicePacker packer(logit_rows, vocab_size);
  for (const TokenChoice& choice : choices) packer.Add(choice);
  return packer.Pack();
}

std::vector<ChosenToken> UnpackChosen(absl::Span<const TokenChoice> choices,
                                      const PackedChoices& packed, const void* output,
                                      const float* combined, int32_t vocab_size) {
  CHECK(static_cast<int32_t>(choices.size()) == packed.num_choices());
  const device::ChoiceInputs in = packed.InputsAt(packed.bytes().data());
  const device::ChoiceOutputs out = packed.OutputsAt(const_cast<void*>(output));  // only read
  std::vector<ChosenToken> result(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    const DeviceChoice& choice = in.choices[i];
    const device::DeviceChosen& from = out.chosen[i];
    ChosenToken& chosen = result[i];
    chosen.status = StatusOf(from.status);
    chosen.disagreement = from.disagreement;
    if (choices[i].want_logits) {
      const float* row = combined + static_cast<int64_t>(i) * vocab_size;
      chosen.logits.assign(row, row + vocab_size);
    }
    const int64_t num_targets = static_cast<int64_t>(choices[i].targets.size());
    const float* logprobs = out.target_logprobs + choice.target_begin;
    const float* end =
        logprobs + num_targets * static_cast<int64_t>(1 + choices[i].target_rows.size());
    if (!chosen.status.ok()) logprobs += num_targets;  // there are none of the combined row
    chosen.target_logprobs.assign(logprobs, end);
    if (!chosen.status.ok()) continue;
    chosen.token_id = from.token_id;
    chosen.logprob = from.logprob;
    for (int32_t k = 0; k < choice.top_logprobs; ++k) {
      const device::DeviceLogprob& top = out.top_logprobs[choice.top_begin + k];
      chosen.top_logprobs.push_back({top.token_id, top.logprob});
    }
  }
  return result;
}

}  // namespace chorus
