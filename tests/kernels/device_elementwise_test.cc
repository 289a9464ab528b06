// The elementwise device kernels' own source on the host back end, against those of the CPU.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "core/base/thread_pool.h"
#include "core/kernels/cuda/elementwise_kernels.h"
#include "core/kernels/elementwise.h"

namespace chorus::device {
namespace {

template <class Element>
class DeviceElementwiseTest : public testing::Test {
 protected:
  using Elements = std::vector<Element>;
  using Floats = std::vector<float>;

  Elements Random(int64_t size, float limit = 2.0f) {
    std::uniform_real_distribution<float> uniform(-limit, limit);
    Elements out(size);
    for (Element& element : out) element = FromFloat<Element>(uniform(random_));
    return out;
  }
  static Floats ToFloats(const Elements& elements) {
    Floats out;
    for (Element element : elements) out.push_back(ToFloat(element));
    return out;
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

  template <class Kernel>
  void Run(const typename Kernel::Launch& launch, int grid, const std::vector<HostArray>& arrays) {
    const HostLaunch host = {.grid_x = grid,
                             .num_threads = Kernel::kThreads,
                             .shared_bytes = Kernel::kSharedBytes,
                             .arrays = arrays.data(),
                             .num_arrays = static_cast<int>(arrays.size())};
    ASSERT_EQ(RunOnHost(host, [&] { Kernel::Run(launch, 0); }), "");
  }

  template <class T>
  static HostArray In(const std::vector<T>& values) {
    return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), false};
  }
  template <class T>
  static HostArray Out(const std::vector<T>& values) {
    return {values.data(), static_cast<int64_t>(values.size() * sizeof(T)), true};
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

using Types = testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(DeviceElementwiseTest, Types);

TYPED_TEST(DeviceElementwiseTest, AddRmsNorm) {
  for (int size : {2, 64, 576, 3072}) {
    constexpr int kRows = 3;
    const auto delta = this->Random(kRows * size);
    std::vector<float> residual = this->ToFloats(this->Random(kRows * size));
    const std::vector<float> weight = this->ToFloats(this->Random(size));
    for (bool has_delta : {true, false}) {
      std::vector<float> expected_residual = residual, expected(kRows * size);
      const std::vector<float> added =
          has_delta ? this->ToFloats(delta) : std::vector<float>(kRows * size);
      AddRmsNorm(expected_residual.data(), added.data(), weight.data(), kRows, size, 1e-5f,
                 expected.data(), this->pool_);
      auto out = this->Nan(kRows * size);
      this->template Run<AddRmsNormKernel<TypeParam>>(
          {residual.data(), has_delta ? delta.data() : nullptr, weight.data(), out.data(), size,
           1e-5f},
          kRows, {this->Out(residual), this->In(delta), this->In(weight), this->Out(out)});
      EXPECT_EQ(residual, expected_residual);
      this->ExpectNear(out, expected, 8.0f);
    }
  }
}

TYPED_TEST(DeviceElementwiseTest, RopeAndWriteKv) {
  constexpr int kRows = 4, kHeads = 6, kKvHeads = 2, kPositions = 50, kSlots = 9;
  const std::vector<int32_t> positions = {0, 7, 49, 7}, slots = {8, 0, 3, 5};
  for (int head_dim : {4, 64, 128}) {
    const auto qkv = this->Random(kRows * (kHeads + 2 * kKvHeads) * head_dim);
    const std::vector<float> qkv32 = this->ToFloats(qkv);
    const std::vector<float> cosine = this->Table(kPositions, head_dim / 2, false);
    const std::vector<float> sine = this->Table(kPositions, head_dim / 2, true);
    const int64_t kv_size = kSlots * kKvHeads * head_dim;
    std::vector<float> q(kRows * kHeads * head_dim), k(kv_size, 9.0f), v(kv_size, 9.0f);
    RopeAndWriteKv({.shape = {kHeads, kKvHeads, head_dim, 1.0f},
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
    std::vector<TypeParam> k_out(kv_size, FromFloat<TypeParam>(9.0f)), v_out = k_out;
    this->template Run<RopeAndWriteKvKernel<TypeParam>>(
        {qkv.data(), positions.data(), slots.data(), cosine.data(), sine.data(), q_out.data(),
         k_out.data(), v_out.data(), kHeads, kKvHeads, head_dim},
        kRows,
        {this->In(qkv), this->In(positions), this->In(slots), this->In(cosine), this->In(sine),
         this->Out(q_out), this->Out(k_out), this->Out(v_out)});
    this->ExpectNear(q_out, q, 4.0f);
    this->ExpectNear(k_out, k, 4.0f);
    EXPECT_EQ(this->ToFloats(v_out), v);
  }
}

TYPED_TEST(DeviceElementwiseTest, MoveKv) {
  constexpr int kKvHeads = 3, kPositions = 50, kSlots = 8, kHeadDim = 64;
  const std::vector<KvMove> moves = {{0, 5, 0}, {1, 7, 49}, {1, 4, 3}};
  auto k = this->Random(kSlots * kKvHeads * kHeadDim), v = this->Random(k.size());
  std::vector<float> k32 = this->ToFloats(k), v32 = this->ToFloats(v);
  const std::vector<float> cosine = this->Table(kPositions, kHeadDim / 2, false);
  const std::vector<float> sine = this->Table(kPositions, kHeadDim / 2, true);
  MoveKv({.shape = {kKvHeads, kKvHeads, kHeadDim, 1.0f},
          .moves = moves.data(),
          .num_moves = 3,
          .cosine = cosine.data(),
          .sine = sine.data(),
          .kv = {KvType::kFloat32, k32.data(), v32.data(), kSlots}},
         this->pool_);
  this->template Run<MoveKvKernel<TypeParam>>(
      {moves.data(), cosine.data(), sine.data(), k.data(), v.data(), kKvHeads, kHeadDim}, 3,
      {this->In(moves), this->In(cosine), this->In(sine), this->Out(k), this->Out(v)});
  this->ExpectNear(k, k32, 4.0f);
  EXPECT_EQ(this->ToFloats(v), v32);
}

TYPED_TEST(DeviceElementwiseTest, SiluMultiply) {
  constexpr int kRows = 3;
  for (int size : {2, 1536}) {
    auto gate_up = this->Random(kRows * 2 * size, 30.0f);
    const float largest = std::is_same_v<TypeParam, Float16> ? 6e4f : 1e37f;
    gate_up[0] = FromFloat<TypeParam>(-largest);  // neither overflows nor becomes NaN
    gate_up[size] = FromFloat<TypeParam>(1.0f);
    gate_up[1] = FromFloat<TypeParam>(largest);
    gate_up[size + 1] = FromFloat<TypeParam>(0.5f);
    std::vector<float> expected(kRows * size);
    SiluMultiply(this->ToFloats(gate_up).data(), kRows, size, expected.data(), this->pool_);
    auto out = this->Nan(kRows * size);
    this->template Run<SiluMultiplyKernel<TypeParam>>({gate_up.data(), out.data(), size}, kRows,
                                                      {this->In(gate_up), this->Out(out)});
    this->ExpectNear(out, expected, 1.0f);
  }
}

TYPED_TEST(DeviceElementwiseTest, Embed) {
  constexpr int kVocab = 7;
  const std::vector<int32_t> token_ids = {6, 0, 3, 3};
  for (int size : {2, 600}) {
    const auto table = this->Random(kVocab * size);
    const std::vector<float> table32 = this->ToFloats(table);
    std::vector<float> residual(token_ids.size() * size, std::nanf(""));
    this->template Run<EmbedKernel<TypeParam>>(
        {token_ids.data(), table.data(), residual.data(), size}, static_cast<int>(token_ids.size()),
        {this->In(token_ids), this->In(table), this->Out(residual)});
    for (size_t i = 0; i < residual.size(); ++i) {
      ASSERT_EQ(residual[i], table32[token_ids[i / size] * size + i % size]);
    }
  }
}

TYPED_TEST(DeviceElementwiseTest, GatherRows) {
  constexpr int kRows = 5;
  const std::vector<int32_t> rows = {4, 1, 4};
  for (int size : {2, 600}) {
    const auto from = this->Random(kRows * size);
    const std::vector<float> from32 = this->ToFloats(from);
    auto out = this->Nan(static_cast<int64_t>(rows.size()) * size);
    std::vector<float> out32(out.size());
    const int grid = static_cast<int>(rows.size());
    this->template Run<GatherRowsKernel<TypeParam>>(
        {from.data(), rows.data(), out.data(), size}, grid,
        {this->In(from), this->In(rows), this->Out(out)});
    this->template Run<GatherRowsKernel<float>>(
        {from32.data(), rows.data(), out32.data(), size}, grid,
        {this->In(from32), this->In(rows), this->Out(out32)});
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
    const std::vector<float> bias = this->ToFloats(this->Random(size));
    std::vector<float> expected = this->ToFloats(x);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % size];
    this->template Run<AddBiasKernel<TypeParam>>({x.data(), bias.data(), size}, kRows,
                                                 {this->Out(x), this->In(bias)});
    this->ExpectNear(x, expected, 1.0f);
  }
}

}  // namespace
}  // namespace chorus::device
