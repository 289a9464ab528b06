#pragma once

#include <cstdint>

namespace chorus {

// Output columns of one panel: two AVX-512 vectors of float32.
inline constexpr int32_t kPanelColumns = 32;

// At most this many rows in one task, so that their x (1 MB at 1,536 features) stays in L2 while
// the panels pass.
inline constexpr int32_t kMaxTaskRows = 168;

// Weights of one panel, features in pairs: in bfloat16, word [j][c] of 32 bits holds column c's
// weight of feature 2 j in its low half and of feature 2 j + 1 in its high half (zero past the last
// one): what a bfloat16 dot product reads as it is, and from which a shift or a mask makes vectors
// of float32.
inline int64_t NumPairs(int64_t in_features) { return (in_features + 1) / 2; }

// Rows [0, num_rows) times one panel of packed weights. Internal to PackedLinear.
struct LinearTask {
  // float32: [in_features][32] floats. bfloat16: [NumPairs(in_features)][32] words.
  const void* weights = nullptr;
  bool is_bfloat16 = false;
  int32_t in_features = 0;
  int32_t num_columns = 0;  // 1..32; the others are padding
  int32_t num_rows = 0;     // 1..kMaxTaskRows
  const float* x = nullptr;
  int64_t x_stride = 0;
  // For RunDotTask instead of x: rows rounded to bfloat16, pairs as words, zero past the last.
  const uint32_t* x_pairs = nullptr;
  int64_t x_pairs_stride = 0;  // words
  float* y = nullptr;          // of the panel's first column
  int64_t y_stride = 0;
  const float* bias = nullptr;  // [32], zeros where there is none
};

// True if this processor multiplies pairs of bfloat16 (AVX512-BF16).
bool HasBFloat16Dot();

// Rounds a row to bfloat16, to nearest, ties to even: NumPairs(size) words. REQUIRES:
// HasBFloat16Dot().
void RoundRowToPairs(const float* x, int64_t size, uint32_t* pairs);

// The task with bfloat16 products, summed in float32: each output is one chain of pairs in
// ascending order. REQUIRES: HasBFloat16Dot(), is_bfloat16.
void RunDotTask(const LinearTask& task);

}  // namespace chorus
