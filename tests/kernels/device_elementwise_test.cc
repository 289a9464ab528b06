// The elementwise kernels' own source, on the device that this is linked with, against those of the
// CPU.
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

#include "core/base/thread_pool.h"
#include "core/kernels/cuda/device_kernels.h"
#include "core/kernels/elementwise.h"
#include "tests/kernels/device_test_support.h"
#include "tests/kernels/test_device.h"

namespace chorus::device {
namespace {

template <class ElementType>
class DeviceElementwiseTest : public test::DeviceTest {
 protected:
  using Element = ElementType;
  static constexpr DeviceType kType = kTypeOf<Element>;

  using Elements = std::vector<Element>;
  using Floats = std::vector<float>;

  Elements Random(int64_t size, float limit = 2.0f) {
    return RandomElements<Element>(size, limit, random_);
  }
  static Elements Nan(int64_t size) { return Elements(size, Element{0xFFFF}); }

  // Rounding of the result, and of float32 in another order; `limit` bounds its magnitude.
  static void ExpectNear(const Elements& actual, const Floats& expected, float limit) {
    const float unit = std::is_same_v<Element, BFloat16> ? 0x1p-8f : 0x1p-11f;
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(ToFloat(actual[i]), expected[i], unit * std::abs(expected[i]) + 1e-5f * limit)
          << "element " << i;
    }
  }

  template <class Start>
  static void Run(const std::vector<HostArray>& arrays, const Start& start) {
    ASSERT_EQ(test::RunOnDevice(arrays, /*seed=*/1, start), absl::OkStatus());
  }

  // [positions, half] of rotations that are no symmetric numbers.
  static Floats Table(int positions, int half, bool is_sine) {
    Floats table;
    for (int p = 0; p < positions; ++p) {
      for (int i = 0; i < half; ++i) {
        const double angle = p * std::pow(10000.0, -1.0 * i / half);
        table.push_back(static_cast<float>(is_sine ? std::sin(angle) : std::cos(angle)));
      }
    }
    return table;
  }

  std::mt19937 random_{3};
  ThreadPool pool_{1};
};

using ElementTypes = testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(DeviceElementwiseTest, ElementTypes);

TYPED_TEST(DeviceElementwiseTest, AddRmsNorm) {
  for (int size : {2, 64, 578, 3072, 4610}) {
    constexpr int kRows = 3;
    const auto delta = this->Random(kRows * size);
    std::vector<float> residual = ToFloats(this->Random(kRows * size));
    const std::vector<float> weight = ToFloats(this->Random(size));
    for (bool has_delta : {true, false}) {
      std::vector<float> expected_residual = residual, expected(kRows * size);
      const std::vector<float> added =
          has_delta ? ToFloats(delta) : std::vector<float>(kRows * size);
      chorus::AddRmsNorm(expected_residual.data(), added.data(), weight.data(), kRows, size, 1e-5f,
                         expected.data(), this->pool_);
      auto out = this->Nan(kRows * size);
      this->Run({Writable(residual), ReadOnly(delta), ReadOnly(weight), Writable(out)},
                [&](DeviceKernels& kernels, const auto& at) {
                  return kernels.AddRmsNorm(this->kType, at(residual.data()),
                                            has_delta ? at(delta.data()) : nullptr,
                                            at(weight.data()), kRows, size, 1e-5f, at(out.data()));
                });
      EXPECT_EQ(residual, expected_residual);
      this->ExpectNear(out, expected, 8.0f);
    }
  }
}

TYPED_TEST(DeviceElementwiseTest, RopeAndWriteKv) {
  constexpr int kRows = 4, kHeads = 14, kKvHeads = 2, kPositions = 50, kSlots = 9;
  const std::vector<int32_t> positions = {0, 7, 49, 7}, slots = {8, 0, 3, 5};
  for (int head_dim : {4, 64, 128}) {  // the last by more than one block
    const auto qkv = this->Random(kRows * (kHeads + 2 * kKvHeads) * head_dim);
    const std::vector<float> qkv32 = ToFloats(qkv);
    const std::vector<float> cosine = this->Table(kPositions, head_dim / 2, false);
    const std::vector<float> sine = this->Table(kPositions, head_dim / 2, true);
    const int64_t kv_size = kSlots * kKvHeads * head_dim;
    std::vector<float> q(kRows * kHeads * head_dim), k(kv_size, 9.0f), v(kv_size, 9.0f);
    chorus::RopeAndWriteKv({.shape = {kHeads, kKvHeads, head_dim, 1.0f},
                            .qkv = qkv32.data(),
                            .positions = positions.data(),
                            .slots = slots.data(),
                            .num_rows = kRows,
                            .cosine = cosine.data(),
                            .sine = sine.data(),
                            .q_out = q.data(),
                            .kv = {KvType::kFloat32, k.data(), v.data(), kSlots}},
                           this->pool_);
    auto q_out = this->Nan(kRows * kHeads * head_dim);
    using Element = TypeParam;
    std::vector<Element> k_out(kv_size, FromFloat<Element>(9.0f)), v_out = k_out;
    this->Run({ReadOnly(qkv), ReadOnly(positions), ReadOnly(slots), ReadOnly(cosine),
               ReadOnly(sine), Writable(q_out), Writable(k_out), Writable(v_out)},
              [&](DeviceKernels& kernels, const auto& at) {
                return kernels.RopeAndWriteKv(this->kType,
                                              {.shape = {kHeads, kKvHeads, head_dim, 1.0f},
                                               .qkv = at(qkv.data()),
                                               .positions = at(positions.data()),
                                               .slots = at(slots.data()),
                                               .num_rows = kRows,
                                               .cosine = at(cosine.data()),
                                               .sine = at(sine.data()),
                                               .q_out = at(q_out.data()),
                                               .k = at(k_out.data()),
                                               .v = at(v_out.data())});
              });
    this->ExpectNear(q_out, q, 4.0f);
    this->ExpectNear(k_out, k, 4.0f);
    EXPECT_EQ(ToFloats(v_out), v);
  }
}

TYPED_TEST(DeviceElementwiseTest, MoveKv) {
  constexpr int kKvHeads = 3, kPositions = 50, kSlots = 8, kHeadDim = 64;
  const std::vector<KvMove> moves = {{0, 5, 0}, {1, 7, 49}, {1, 4, 3}};
  auto k = this->Random(kSlots * kKvHeads * kHeadDim), v = this->Random(k.size());
  std::vector<float> k32 = ToFloats(k), v32 = ToFloats(v);
  const std::vector<float> cosine = this->Table(kPositions, kHeadDim / 2, false);
  const std::vector<float> sine = this->Table(kPositions, kHeadDim / 2, true);
  chorus::MoveKv({.shape = {kKvHeads, kKvHeads, kHeadDim, 1.0f},
                  .moves = moves.data(),
                  .num_moves = 3,
                  .cosine = cosine.data(),
                  .sine = sine.data(),
                  .kv = {KvType::kFloat32, k32.data(), v32.data(), kSlots}},
                 this->pool_);
  this->Run({ReadOnly(moves), ReadOnly(cosine), ReadOnly(sine), Writable(k), Writable(v)},
            [&](DeviceKernels& kernels, const auto& at) {
              return kernels.MoveKv(this->kType,
                                    {.shape = {kKvHeads, kKvHeads, kHeadDim, 1.0f},
                                     .cosine = at(cosine.data()),
                                     .sine = at(sine.data()),
                                     .k = at(k.data()),
                                     .v = at(v.data())},
                                    at(moves.data()), static_cast<int32_t>(moves.size()));
            });
  this->ExpectNear(k, k32, 4.0f);
  EXPECT_EQ(ToFloats(v), v32);
}

TYPED_TEST(DeviceElementwiseTest, SiluMultiply) {
  constexpr int kRows = 3;
  for (int size : {2, 1536, 2054, 4104}) {
    auto gate_up = this->Random(kRows * 2 * size, 30.0f);
    using Element = TypeParam;
    const float largest = std::is_same_v<Element, Float16> ? 6e4f : 1e37f;
    gate_up[0] = FromFloat<Element>(-largest);  // neither overflows nor becomes NaN
    gate_up[size] = FromFloat<Element>(1.0f);
    gate_up[1] = FromFloat<Element>(largest);
    gate_up[size + 1] = FromFloat<Element>(0.5f);
    std::vector<float> expected(kRows * size);
    chorus::SiluMultiply(ToFloats(gate_up).data(), kRows, size, expected.data(), this->pool_);
    auto out = this->Nan(kRows * size);
    this->Run({ReadOnly(gate_up), Writable(out)}, [&](DeviceKernels& kernels, const auto& at) {
      return kernels.SiluMultiply(this->kType, at(gate_up.data()), kRows, size, at(out.data()));
    });
    this->ExpectNear(out, expected, 1.0f);
  }
}

TYPED_TEST(DeviceElementwiseTest, Embed) {
  constexpr int kVocab = 7;
  const std::vector<int32_t> token_ids = {6, 0, 3, 3};
  for (int size : {2, 600}) {
    const auto table = this->Random(kVocab * size);
    const std::vector<float> table32 = ToFloats(table);
    std::vector<float> residual(token_ids.size() * size, std::nanf(""));
    this->Run({ReadOnly(token_ids), ReadOnly(table), Writable(residual)},
              [&](DeviceKernels& kernels, const auto& at) {
                return kernels.Embed(this->kType, at(token_ids.data()),
                                     static_cast<int32_t>(token_ids.size()), at(table.data()), size,
                                     at(residual.data()));
              });
    for (size_t i = 0; i < residual.size(); ++i) {
      ASSERT_EQ(residual[i], table32[token_ids[i / size] * size + i % size]);
    }
  }
}

TYPED_TEST(DeviceElementwiseTest, GatherRows) {
  constexpr int kRows = 5;
  const std::vector<int32_t> rows = {4, 1, 4};
  const auto num_rows = static_cast<int32_t>(rows.size());
  for (int size : {2, 600}) {
    const auto from = this->Random(kRows * size);
    const std::vector<float> from32 = ToFloats(from);
    auto out = this->Nan(int64_t{num_rows} * size);
    std::vector<float> out32(out.size());
    this->Run({ReadOnly(from), ReadOnly(rows), Writable(out)},
              [&](DeviceKernels& kernels, const auto& at) {
                return kernels.GatherRows(this->kType, at(from.data()), at(rows.data()), num_rows,
                                          size, at(out.data()));
              });
    this->Run({ReadOnly(from32), ReadOnly(rows), Writable(out32)},
              [&](DeviceKernels& kernels, const auto& at) {
                return kernels.GatherFloatRows(at(from32.data()), at(rows.data()), num_rows, size,
                                               at(out32.data()));
              });
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i].bits, from[rows[i / size] * size + i % size].bits);
      ASSERT_EQ(out32[i], from32[rows[i / size] * size + i % size]);
    }
  }
}

TYPED_TEST(DeviceElementwiseTest, AddBias) {
  constexpr int kRows = 3;
  for (int size : {2, 600}) {
    auto x = this->Random(kRows * size);
    const std::vector<float> bias = ToFloats(this->Random(size));
    std::vector<float> expected = ToFloats(x);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % size];
    this->Run({Writable(x), ReadOnly(bias)}, [&](DeviceKernels& kernels, const auto& at) {
      return kernels.AddBias(this->kType, at(x.data()), at(bias.data()), kRows, size);
    });
    this->ExpectNear(x, expected, 1.0f);
  }
}

}  // namespace
}  // namespace chorus::device
