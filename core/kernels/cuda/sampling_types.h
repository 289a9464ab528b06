#pragma once

#include <cstdint>

// What the sampling kernels read and write: flat arrays, the same for host and device, without
// pointers inside. core/model/device_choices.h makes them of a step's choices.
namespace chorus::device {

// How the logit rows of a choice become one row, as CombineLogits says.
enum class LogitRule : int32_t { kNone, kLogitMean, kProbMean, kProbMax, kLogitMax };

enum class ChoiceStatus : int32_t { kOk, kNoTokenLeft, kNotFinite, kBiasedNotFinite };

inline constexpr int32_t kMaxRowsOfChoice = 256;   // combined, compared or scored, each
inline constexpr int32_t kMaxTopOfChoice = 1024;   // top_logprobs
inline constexpr int32_t kMaxVocabSize = 1 << 21;  // so that a row's masses fit 64 bits

// Indices [begin, end) of one of the arrays of ChoiceInputs.
struct IndexRange {
  int32_t begin = 0;
  int32_t end = 0;
};

struct TokenBias {
  int32_t token_id = 0;
  float bias = 0.0f;  // finite
};

// A token of prompt or answer, and how often the answer has it.
struct TokenCount {
  int32_t token_id = 0;
  int32_t count = 0;
};

// One token to be chosen. The token ids of biases, allowed, banned and counted are known to the
// vocabulary, each once in its list.
struct DeviceChoice {
  LogitRule rule = LogitRule::kNone;
  IndexRange rows;             // of row_indices; one for kNone
  IndexRange compared_rows;    // of row_indices
  IndexRange target_rows;      // of row_indices
  int32_t weights_begin = -1;  // of weights, one a row; -1: all equal
  IndexRange biases;           // of biases
  IndexRange allowed;          // of token_ids; read if has_allowed
  IndexRange banned;           // of token_ids
  IndexRange counted;          // of counts; empty without penalties
  IndexRange targets;          // of token_ids
  int32_t has_allowed = 0;
  int32_t changed_row = -1;  // row of `changed`; -1: no bias, bans or penalties
  int32_t wants_logits = 0;  // the combined row is written even for kNone
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float inverse_temperature = 0.0f;  // 0: greedy
  int32_t top_k = 0;                 // 0: off
  float min_p = 0.0f;                // at most 1
  int32_t top_logprobs = 0;          // at most vocab_size and kMaxTopOfChoice
  int32_t top_begin = 0;             // of ChoiceOutputs::top_logprobs
  int32_t target_begin = 0;          // of ChoiceOutputs::target_logprobs
  uint64_t top_p = 0;                // times 2^64, rounded down; 0: off
  uint64_t draw = 0;                 // uniform in [0, 1) times 2^64
};

struct DeviceLogprob {
  int32_t token_id = 0;
  float logprob = 0.0f;
};

struct DeviceChosen {
  ChoiceStatus status = ChoiceStatus::kOk;
  int32_t token_id = 0;
  float logprob = 0.0f;
  float disagreement = 0.0f;
};

struct ChoiceInputs {
  const DeviceChoice* choices = nullptr;
  const int32_t* row_indices = nullptr;  // of rows of logits
  const float* weights = nullptr;
  const TokenBias* biases = nullptr;
  const TokenCount* counts = nullptr;
  const int32_t* token_ids = nullptr;
};

struct ChoiceOutputs {
  DeviceChosen* chosen = nullptr;         // [num_choices]
  DeviceLogprob* top_logprobs = nullptr;  // best first; only of choices that are kOk
  // Of a choice [1 + target_rows, targets]; the first row only if it is kOk.
  float* target_logprobs = nullptr;
};

// Of kSplitSize entries of a row.
inline constexpr int32_t kSplitSize = 4096;
struct SplitStatistics {
  float largest = 0.0f;  // NaN if any is NaN
  float sum = 0.0f;      // of exp(x - largest); 0 if `largest` is not finite
  int32_t best = 0;      // lowest id that has `largest`
};

// All five kernels read the same launch.
struct SamplingLaunch {
  ChoiceInputs in;
  ChoiceOutputs out;
  const float* logits = nullptr;           // [num_rows, vocab_size]
  float* combined = nullptr;               // [num_choices, vocab_size]
  float* changed = nullptr;                // [number of changed rows, vocab_size]
  int32_t vocab_size = 0;                  // 1 to kMaxVocabSize
  int32_t num_splits = 0;                  // ceil(vocab_size / kSplitSize)
  SplitStatistics* of_rows = nullptr;      // [num_rows, num_splits]: of logits
  SplitStatistics* of_means = nullptr;     // [num_choices, num_splits]: as combined at first
  SplitStatistics* of_combined = nullptr;  // like of_means: of kProbMean, kProbMax normalised
  SplitStatistics* of_changed = nullptr;   // [number of changed rows, num_splits]
  double* divergences = nullptr;           // [num_choices, num_splits]
};

}  // namespace chorus::device
