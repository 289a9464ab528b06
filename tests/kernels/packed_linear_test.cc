#include "core/kernels/packed_linear.h"

#include <cmath>
#include <cstring>
#include <iostream>

#include "gtest/gtest.h"

#include "core/kernels/bfloat16.h"
#include "tests/kernels/kernel_test_support.h"

namespace chorus {
namespace {

using test::KernelTargets;
using test::RandomFloats;
using test::ScopedKernelTarget;

struct LinearCase {
  WeightType type;
  int32_t in_features;
  int32_t out_features;
  bool has_bias;
  BFloat16Products products = BFloat16Products::kFastest;
};

std::string CaseName(const testing::TestParamInfo<LinearCase>& info) {
  const LinearCase& test = info.param;
  return std::string(test.type == WeightType::kFloat32 ? "Float32" : "BFloat16") + "K" +
         std::to_string(test.in_features) + "N" + std::to_string(test.out_features) +
         (test.has_bias ? "Bias" : "") +
         (test.products == BFloat16Products::kFloat32 ? "FloatProducts" : "");
}

class PackedLinearTest : public testing::TestWithParam<LinearCase> {
 protected:
  void SetUp() override {
    const LinearCase& test = GetParam();
    std::mt19937 random(7);
    weights_ = RandomFloats(int64_t{test.in_features} * test.out_features, random);
    if (test.has_bias) bias_ = RandomFloats(test.out_features, random);
    x_ = RandomFloats(int64_t{kMaxRows} * test.in_features, random);
    linear_ = PackedLinear::Create(
        test.type, test.in_features, test.out_features,
        [&](int32_t row, float* out) {
          std::copy_n(weights_.begin() + int64_t{row} * test.in_features, test.in_features, out);
        },
        bias_, test.products);
    if (linear_->rounds_inputs()) {
      // From here on x is what is multiplied, so that the reference is exact.
      for (float& value : x_) value = FloatFromBFloat16(BFloat16FromFloat(value));
    }
    if (test.type == WeightType::kBFloat16) {
      for (float& weight : weights_) weight = FloatFromBFloat16(BFloat16FromFloat(weight));
    }
  }

  std::vector<float> Forward(int32_t row_begin, int32_t num_rows, ThreadPool& pool) const {
    const LinearCase& test = GetParam();
    std::vector<float> y(int64_t{num_rows} * test.out_features, std::nanf(""));
    linear_->Forward(x_.data() + int64_t{row_begin} * test.in_features, test.in_features, num_rows,
                     y.data(), test.out_features, pool);
    return y;
  }

  static constexpr int32_t kMaxRows = 400;  // more than two tasks' worth
  std::vector<float> weights_, bias_, x_;
  std::unique_ptr<const PackedLinear> linear_;
};

TEST_P(PackedLinearTest, EqualsADoubleReferenceOnEveryTarget) {
  const LinearCase& test = GetParam();
  ThreadPool pool(2);
  constexpr int32_t kRows = 45;
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    const std::vector<float> y = Forward(0, kRows, pool);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t n = 0; n < test.out_features; ++n) {
        double sum = test.has_bias ? bias_[n] : 0.0;
        double sum_of_sizes = std::abs(sum);
        for (int64_t k = 0; k < test.in_features; ++k) {
          const double product =
              double{x_[r * test.in_features + k]} * double{weights_[n * test.in_features + k]};
          sum += product;
          sum_of_sizes += std::abs(product);
        }
        // A chain of K multiply-adds, each rounded at most twice (without fused ones).
        const double tolerance = 2.0 * test.in_features * test::kEpsilon * sum_of_sizes + 1e-30;
        ASSERT_NEAR(y[r * test.out_features + n], sum, tolerance) << "row " << r << " column " << n;
      }
    }
  }
}

TEST_P(PackedLinearTest, ARowIsTheSameBitForBitInEveryBatch) {
  const LinearCase& test = GetParam();
  ThreadPool one(1), two(2), four(4);
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    const std::vector<float> all = Forward(0, kMaxRows, two);
    ASSERT_EQ(Forward(0, kMaxRows, one), all);
    ASSERT_EQ(Forward(0, kMaxRows, four), all);
    for (int32_t num_rows :
         {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 29, 100, 169, 337}) {
      const int32_t row_begin = num_rows % 11;
      const std::vector<float> part = Forward(row_begin, num_rows, two);
      ASSERT_EQ(0, std::memcmp(part.data(), all.data() + int64_t{row_begin} * test.out_features,
                               part.size() * sizeof(float)))
          << num_rows << " rows";
    }
  }
}

TEST_P(PackedLinearTest, StridesLeaveTheGapsUntouched) {
  const LinearCase& test = GetParam();
  ThreadPool pool(2);
  constexpr int32_t kRows = 20;
  const int64_t x_stride = test.in_features + 3, y_stride = test.out_features + 5;
  std::vector<float> x(kRows * x_stride, std::nanf(""));
  for (int64_t r = 0; r < kRows; ++r) {
    std::copy_n(x_.begin() + r * test.in_features, test.in_features, x.begin() + r * x_stride);
  }
  std::vector<float> y(kRows * y_stride, 123.0f);
  linear_->Forward(x.data(), x_stride, kRows, y.data(), y_stride, pool);
  const std::vector<float> expected = Forward(0, kRows, pool);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t n = 0; n < y_stride; ++n) {
      ASSERT_EQ(y[r * y_stride + n],
                n < test.out_features ? expected[r * test.out_features + n] : 123.0f);
    }
  }
}

TEST_P(PackedLinearTest, ReadRowGivesTheWeightsAsPacked) {
  const LinearCase& test = GetParam();
  std::vector<float> row(test.in_features);
  for (int32_t n = 0; n < test.out_features; ++n) {
    linear_->ReadRow(n, row.data());
    for (int32_t k = 0; k < test.in_features; ++k) {
      ASSERT_EQ(row[k], weights_[int64_t{n} * test.in_features + k]);
    }
  }
}

constexpr BFloat16Products kFloatProducts = BFloat16Products::kFloat32;
INSTANTIATE_TEST_SUITE_P(Shapes, PackedLinearTest,
                         testing::Values(LinearCase{WeightType::kFloat32, 1, 1, false},
                                         LinearCase{WeightType::kBFloat16, 1, 1, true},
                                         LinearCase{WeightType::kFloat32, 37, 33, true},
                                         LinearCase{WeightType::kBFloat16, 37, 31, true},
                                         LinearCase{WeightType::kFloat32, 192, 64, false},
                                         LinearCase{WeightType::kBFloat16, 193, 64, false},
                                         LinearCase{WeightType::kFloat32, 577, 100, true},
                                         LinearCase{WeightType::kBFloat16, 576, 97, false},
                                         LinearCase{WeightType::kBFloat16, 1, 1, false, kFloatProducts},
                                         LinearCase{WeightType::kBFloat16, 37, 31, true, kFloatProducts},
                                         LinearCase{WeightType::kBFloat16, 577, 97, true, kFloatProducts}),
                         CaseName);

TEST(PackedLinearValueTest, BFloat16WeightsAreRoundedToNearestEven) {
  const std::vector<std::pair<float, float>> pairs = {
      {0x1.00p0f, 0x1.00p0f},      {0x1.01p0f, 0x1.00p0f},  // a tie goes to the even neighbour
      {0x1.03p0f, 0x1.04p0f},      {0x1.010002p0f, 0x1.02p0f}, {-0x1.03p0f, -0x1.04p0f},
      {0x1.fffffep127f, INFINITY}, {0x1.0p-133f, 0x1.0p-133f}, {-0.0f, -0.0f}};
  const auto linear = PackedLinear::Create(
      WeightType::kBFloat16, static_cast<int32_t>(pairs.size()), 1, [&](int32_t, float* out) {
        for (size_t i = 0; i < pairs.size(); ++i) out[i] = pairs[i].first;
      });
  std::vector<float> row(pairs.size());
  linear->ReadRow(0, row.data());
  for (size_t i = 0; i < pairs.size(); ++i) EXPECT_EQ(row[i], pairs[i].second) << i;
}

// Where inputs are rounded, they are rounded to nearest even, once, and nothing else is lost.
TEST(PackedLinearValueTest, InputsAreRoundedOnlyWhereItIsSaid) {
  std::mt19937 random(5);
  constexpr int32_t kSize = 45;
  const std::vector<float> x = RandomFloats(kSize, random);
  ThreadPool pool(1);
  for (const auto products : {BFloat16Products::kFastest, BFloat16Products::kFloat32}) {
    for (int32_t k = 0; k < kSize; ++k) {
      const auto pick = PackedLinear::Create(
          WeightType::kBFloat16, kSize, 1,
          [&](int32_t, float* out) {
            std::fill_n(out, kSize, 0.0f);
            out[k] = 1.0f;
          },
          {}, products);
      float y = 0.0f;
      pick->Forward(x.data(), kSize, 1, &y, 1, pool);
      EXPECT_EQ(y, pick->rounds_inputs() ? FloatFromBFloat16(BFloat16FromFloat(x[k])) : x[k]) << k;
    }
  }
}

TEST(PackedLinearValueTest, NoRowsAreNoWork) {
  const auto linear = PackedLinear::Create(WeightType::kFloat32, 3, 2,
                                           [](int32_t, float* out) { std::fill_n(out, 3, 1.0f); });
  ThreadPool pool(1);
  linear->Forward(nullptr, 3, 0, nullptr, 2, pool);
  EXPECT_EQ(linear->in_features(), 3);
  EXPECT_EQ(linear->out_features(), 2);
}

// Guards the tests above: were the choice of a target without effect, they would all test one.
TEST(KernelTargetTest, TargetsWithAndWithoutFusedMultiplyAddDiffer) {
  std::mt19937 random(3);
  const std::vector<float> x = RandomFloats(1000, random), weights = RandomFloats(1000, random);
  const auto linear = PackedLinear::Create(WeightType::kFloat32, 1000, 1, [&](int32_t, float* out) {
    std::copy(weights.begin(), weights.end(), out);
  });
  ThreadPool pool(1);
  const auto run = [&](int64_t target) {
    const ScopedKernelTarget scoped(target);
    float y = 0.0f;
    linear->Forward(x.data(), 1000, 1, &y, 1, pool);
    return y;
  };
  const std::vector<int64_t> targets = KernelTargets();
  for (int64_t target : targets) std::cout << test::KernelTargetName(target) << "\n";
  ASSERT_FALSE(targets.empty());
  if (targets.size() < 3) GTEST_SKIP() << "this machine runs plain C++ and SSE4 at most";
  EXPECT_NE(run(targets.front()), run(targets.back()));
}

TEST(PackedLinearDeathTest, HostileSizesAreOurOwnBugs) {
  const auto zeros = [](int32_t, float* out) { *out = 0.0f; };
  EXPECT_DEATH(PackedLinear::Create(WeightType::kFloat32, 0, 1, zeros), "in_features");
  EXPECT_DEATH(PackedLinear::Create(WeightType::kFloat32, 1, -1, zeros), "out_features");
  EXPECT_DEATH(PackedLinear::Create(WeightType::kFloat32, 1, 2, zeros, {1.0f}), "bias");
  const auto linear = PackedLinear::Create(WeightType::kFloat32, 1, 1, zeros);
  ThreadPool pool(1);
  float x[2] = {}, y[2] = {};
  EXPECT_DEATH(linear->Forward(x, 1, -1, y, 1, pool), "num_rows");
  EXPECT_DEATH(linear->Forward(x, 0, 2, y, 1, pool), "stride");
  EXPECT_DEATH(linear->ReadRow(1, x), "row");
}

}  // namespace
}  // namespace chorus
