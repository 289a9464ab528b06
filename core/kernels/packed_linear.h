#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/thread_pool.h"

namespace chorus {

enum class WeightType { kFloat32, kBFloat16 };

// How bfloat16 weights are multiplied. kFastest: where the processor has bfloat16 dot products, with
// x rounded to bfloat16 too and products summed in float32; elsewhere as kFloat32: x as it is.
enum class BFloat16Products { kFastest, kFloat32 };

// y = x W^T + b with W packed once into panels of output columns, in float32 or bfloat16; x, y and
// the accumulators are float32. Immutable after Create, thread-safe.
//
// Own code because a row's result must not depend on how many rows stand beside it: each output is
// one chain of multiply-adds in ascending k, whatever the batch. oneDNN and MKL choose another order
// of summation by shape.
class PackedLinear {
 public:
  // Gives one row of the weights: writes in_features floats for output `row` into `out`.
  // Called once for every row while packing, from one thread or several.
  using RowReader = std::function<void(int32_t row, float* out)>;
  static std::unique_ptr<const PackedLinear> Create(WeightType type, int32_t in_features,
                                                    int32_t out_features, const RowReader& read_row,
                                                    std::vector<float> bias = {},
                                                    BFloat16Products products =
                                                        BFloat16Products::kFastest);

  // May use pool.Scratch. x [num_rows, in_features], row stride x_stride floats; y [num_rows, out_features], stride y_stride.
  void Forward(const float* x, int64_t x_stride, int32_t num_rows, float* y, int64_t y_stride,
               ThreadPool& pool) const;

  // Writes row `row` of W (in_features floats): the embedding of a tied output head.
  void ReadRow(int32_t row, float* out) const;

  // True if Forward rounds x to bfloat16.
  bool rounds_inputs() const;
  int32_t in_features() const;
  int32_t out_features() const;
  int64_t weight_bytes() const;

 private:
  struct Packed;
  explicit PackedLinear(std::unique_ptr<Packed> packed);
  std::unique_ptr<Packed> packed_;

 public:
  ~PackedLinear();
};

}  // namespace chorus
