#pragma once

#include <cstdint>

namespace chorus {

// Output columns of one panel: two AVX-512 vectors of float32.
inline constexpr int32_t kPanelColumns = 32;

// At most this many rows in one task, so that their x (1 MB at 1,536 features) stays in L2 while
// the panels pass.
inline constexpr int32_t kMaxTaskRows = 168;

// Rows [0, num_rows) times one panel of packed weights. Internal to PackedLinear.
struct LinearTask {
  // float32: [in_features][32] floats. bfloat16: [in_features][16] words of 32 bits, of which word
  // j holds column j in its low and column 16 + j in its high half, so that one load gives two
  // vectors of float32 by a shift and a mask.
  const void* weights = nullptr;
  bool is_bfloat16 = false;
  int32_t in_features = 0;
  int32_t num_columns = 0;  // 1..32; the others are padding
  int32_t num_rows = 0;     // 1..kMaxTaskRows
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;  // of the panel's first column
  int64_t y_stride = 0;
  const float* bias = nullptr;  // [32], zeros where there is none
};

}  // namespace chorus
