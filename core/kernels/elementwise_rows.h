#pragma once

#include <cstdint>

#include "core/kernels/elementwise.h"

namespace chorus {

// Rows [row_begin, row_end) of the functions of elementwise.h. Internal to them.
struct NormRows {
  float* residual = nullptr;     // in and out when delta is set, otherwise not written
  const float* x = nullptr;      // used when delta is null
  const float* delta = nullptr;  // null: plain RmsNorm of x
  const float* weight = nullptr;
  int32_t size = 0;
  float epsilon = 0.0f;
  float* out = nullptr;
};

struct SiluRows {
  const float* gate_up = nullptr;
  int32_t size = 0;
  float* out = nullptr;
};

}  // namespace chorus
