#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/step_plan.h"

namespace chorus {

// A choice that owns what TokenChoice borrows.
struct OwnedChoice {
  TokenChoice choice;  // but for its pointers
  SamplingParams sampling;
  std::vector<int32_t> prompt, generated, banned;

  TokenChoice Borrow() const;
};

// Logits of a step's rows, [num_rows, vocab_size].
struct StepLogits {
  std::vector<int32_t> step_rows;  // ascending: the step's rows that these are of
  int32_t vocab_size = 0;
  std::vector<float> values;

  const float* Row(int32_t step_row) const;
  std::vector<const float*> Rows(const std::vector<int32_t>& of) const;
};

// Normal, with spread `spread`; some rows get ties, infinities or NaN if `has_odd` is set.
StepLogits RandomLogits(int num_rows, int32_t vocab_size, float spread, bool has_odd,
                        std::mt19937& random);

// Any rule over rows of `logits`, with any of the parameters.
OwnedChoice RandomChoice(const StepLogits& logits, std::mt19937& random);

struct DeviceSampling {
  std::vector<ChosenToken> chosen;
  std::vector<float> combined;  // [num_choices, vocab_size]; NaN where kNone is not copied
};

// PackChoices, the kernels on the test's device (test_device.h), UnpackChosen. Fails the test if a
// kernel does what it must not. With `all_kernels` also those run that no choice needs. `seed`: the
// order in which simulated threads advance.
DeviceSampling SampleOnDevice(absl::Span<const TokenChoice> choices, const StepLogits& logits,
                              uint32_t seed = 1, bool all_kernels = false);

// What CombineLogits makes of the choice's rows.
std::vector<float> CombineOnCpu(const TokenChoice& choice, const StepLogits& logits);

// Whether a draw of `choice` from the combined `row`, or a cut before it, is so close to a boundary
// that rounding of probabilities may decide: relative errors up to
//   2 sides * 2 (share and total) * (29 * 3 * 2^-24 + 2^-22) < 2.5e-5
// where 29 bounds |x - largest| / T of a token with a mass, which is rounded three times.
bool IsNearBoundary(const TokenChoice& choice, const float* row, int32_t vocab_size);

// Everything but the logits: same status, tokens and order; log-probabilities within rounding. A
// draw near a boundary may differ; returns whether it was one.
bool ExpectSameChoice(const ChosenToken& actual, const TokenChoice& choice,
                      const StepLogits& logits, const std::vector<float>& combined);

}  // namespace chorus
