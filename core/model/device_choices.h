#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "core/engine/step_plan.h"
#include "core/kernels/cuda/sampling_types.h"

namespace chorus {

// A step's choices as the sampling kernels read them: one block of bytes that can be copied to a
// device in one piece, and the size of the block that the kernels write and that is copied back.
class PackedChoices {
 public:
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  int64_t output_bytes() const { return output_bytes_; }
  int32_t num_choices() const { return num_choices_; }
  int32_t num_changed_rows() const { return num_changed_rows_; }
  // Whether some choice needs the kernel of that name; see CudaSamplingArgs.
  bool combines() const { return combines_; }
  bool adjusts() const { return adjusts_; }
  bool compares() const { return compares_; }

  // The arrays of a copy of bytes() that begins at `base`, and those of a block of output_bytes()
  // there. Nothing is read or written. REQUIRES: `base` is a multiple of 16.
  device::ChoiceInputs InputsAt(const void* base) const;
  device::ChoiceOutputs OutputsAt(void* base) const;

 private:
  friend class ChoicePacker;

  std::vector<uint8_t> bytes_;
  // Where the arrays begin.
  int64_t choices_ = 0, row_indices_ = 0, weights_ = 0, biases_ = 0, counts_ = 0, token_ids_ = 0;
  int64_t top_logprobs_ = 0, target_logprobs_ = 0;  // of the output
  int64_t output_bytes_ = 0;
  int32_t num_choices_ = 0;
  int32_t num_changed_rows_ = 0;
  bool combines_ = false, adjusts_ = false, compares_ = false;
};

// `logit_rows`, ascending: row i of the logits is of the step's row logit_rows[i]. Token ids that
// the vocabulary does not have are left out, as SampleToken ignores them; draws are made here.
// REQUIRES: every row that a choice names is one of them, at most device::kMaxRowsOfChoice of a
// kind; targets are in [0, vocab_size).
PackedChoices PackChoices(absl::Span<const TokenChoice> choices,
                          absl::Span<const int32_t> logit_rows, int32_t vocab_size);

// The tokens that the kernels chose, as SampleToken, Disagreement and AppendLogprobs give them.
// `output` is what they wrote, at a multiple of 16; `combined`, [num_choices, vocab_size], is read
// where a choice wants its logits and may else be null.
std::vector<ChosenToken> UnpackChosen(absl::Span<const TokenChoice> choices,
                                      const PackedChoices& packed, const void* output,
                                      const float* combined, int32_t vocab_size);

}  // namespace chorus
