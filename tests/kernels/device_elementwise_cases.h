#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

#include "core/base/thread_pool.h"
#include "core/kernels/cuda/device.h"
#include "core/kernels/cuda/device_args.h"
#include "core/kernels/elementwise.h"

// The elementwise device kernels against those of the CPU: the cases, for every back end.
namespace chorus::device {

// The back end and the element of a suite. A back end is given host memory, and in `arrays` all of
// it that a kernel may touch:
//   static std::string WhyAbsent()   "" if it can run
//   template <class Element> static void
//     AddRmsNorm(const NormArgs<Element>& args, const Arrays& arrays)
//     RopeAndWriteKv(const DeviceRopeArgs& args, const Arrays& arrays)
//     MoveKv(const DeviceRopeArgs& args, const std::vector<KvMove>& moves, const Arrays& arrays)
//     SiluMultiply(const SiluArgs<Element>& args, const Arrays& arrays)
//     Embed(const RowsArgs<Element, float>& args, const Arrays& arrays)
//     GatherRows(const RowsArgs<T, T>& args, const Arrays& arrays), T the element or float
//     AddBias(const BiasArgs<Element>& args, const Arrays& arrays)
template <class BackendType, class ElementType>
struct ElementwiseCase {
  using Backend = BackendType;
  using Element = ElementType;
};

using Arrays = std::vector<HostArray>;

template <class Element>
struct NormArgs {
  float* residual = nullptr;
  const Element* delta = nullptr;  // null: nothing is added
  const float* weight = nullptr;
  Element* out = nullptr;
  int32_t num_rows = 0;
  int32_t size = 0;
  float epsilon = 0.0f;
};

template <class Element>
struct SiluArgs {
  const Element* gate_up = nullptr;
  Element* out = nullptr;
  int32_t num_rows = 0;
  int32_t size = 0;
};

// Row i of `to` comes from row indexes[i] of `from`.
template <class From, class To>
struct RowsArgs {
  const int32_t* indexes = nullptr;
  const From* from = nullptr;
  To* to = nullptr;
  int32_t num_rows = 0;
  int32_t size = 0;
};

template <class Element>
struct BiasArgs {
  Element* x = nullptr;
  const float* bias = nullptr;
  int32_t num_rows = 0;
  int32_t size = 0;
};

template <class Case>
class DeviceElementwiseTest : public testing::Test {
 protected:
  using Element = typename Case::Element;
  void SetUp() override {
    if (const std::string why = Case::Backend::WhyAbsent(); !why.empty()) GTEST_SKIP() << why;
  }

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

TYPED_TEST_SUITE_P(DeviceElementwiseTest);

TYPED_TEST_P(DeviceElementwiseTest, AddRmsNorm) {
  for (int size : {2, 64, 578, 3072, 4610}) {
    constexpr int kRows = 3;
    const auto delta = this->Random(kRows * size);
    std::vector<float> residual = this->ToFloats(this->Random(kRows * size));
    const std::vector<float> weight = this->ToFloats(this->Random(size));
    for (bool has_delta : {true, false}) {
      std::vector<float> expected_residual = residual, expected(kRows * size);
      const std::vector<float> added =
          has_delta ? this->ToFloats(delta) : std::vector<float>(kRows * size);
      chorus::AddRmsNorm(expected_residual.data(), added.data(), weight.data(), kRows, size, 1e-5f,
                         expected.data(), this->pool_);
      auto out = this->Nan(kRows * size);
      TypeParam::Backend::template AddRmsNorm<typename TypeParam::Element>(
          {.residual = residual.data(),
           .delta = has_delta ? delta.data() : nullptr,
           .weight = weight.data(),
           .out = out.data(),
           .num_rows = kRows,
           .size = size,
           .epsilon = 1e-5f},
          {this->Out(residual), this->In(delta), this->In(weight), this->Out(out)});
      EXPECT_EQ(residual, expected_residual);
      this->ExpectNear(out, expected, 8.0f);
    }
  }
}

TYPED_TEST_P(DeviceElementwiseTest, RopeAndWriteKv) {
  constexpr int kRows = 4, kHeads = 14, kKvHeads = 2, kPositions = 50, kSlots = 9;
  const std::vector<int32_t> positions = {0, 7, 49, 7}, slots = {8, 0, 3, 5};
  for (int head_dim : {4, 64, 128}) {  // the last by more than one block
    const auto qkv = this->Random(kRows * (kHeads + 2 * kKvHeads) * head_dim);
    const std::vector<float> qkv32 = this->ToFloats(qkv);
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
    using Element = typename TypeParam::Element;
    std::vector<Element> k_out(kv_size, FromFloat<Element>(9.0f)), v_out = k_out;
    TypeParam::Backend::template RopeAndWriteKv<Element>(
        {.shape = {kHeads, kKvHeads, head_dim, 1.0f},
         .qkv = qkv.data(),
         .positions = positions.data(),
         .slots = slots.data(),
         .num_rows = kRows,
         .cosine = cosine.data(),
         .sine = sine.data(),
         .q_out = q_out.data(),
         .k = k_out.data(),
         .v = v_out.data()},
        {this->In(qkv), this->In(positions), this->In(slots), this->In(cosine), this->In(sine),
         this->Out(q_out), this->Out(k_out), this->Out(v_out)});
    this->ExpectNear(q_out, q, 4.0f);
    this->ExpectNear(k_out, k, 4.0f);
    EXPECT_EQ(this->ToFloats(v_out), v);
  }
}

TYPED_TEST_P(DeviceElementwiseTest, MoveKv) {
  constexpr int kKvHeads = 3, kPositions = 50, kSlots = 8, kHeadDim = 64;
  const std::vector<KvMove> moves = {{0, 5, 0}, {1, 7, 49}, {1, 4, 3}};
  auto k = this->Random(kSlots * kKvHeads * kHeadDim), v = this->Random(k.size());
  std::vector<float> k32 = this->ToFloats(k), v32 = this->ToFloats(v);
  const std::vector<float> cosine = this->Table(kPositions, kHeadDim / 2, false);
  const std::vector<float> sine = this->Table(kPositions, kHeadDim / 2, true);
  chorus::MoveKv({.shape = {kKvHeads, kKvHeads, kHeadDim, 1.0f},
                  .moves = moves.data(),
                  .num_moves = 3,
                  .cosine = cosine.data(),
                  .sine = sine.data(),
                  .kv = {KvType::kFloat32, k32.data(), v32.data(), kSlots}},
                 this->pool_);
  TypeParam::Backend::template MoveKv<typename TypeParam::Element>(
      {.shape = {kKvHeads, kKvHeads, kHeadDim, 1.0f},
       .cosine = cosine.data(),
       .sine = sine.data(),
       .k = k.data(),
       .v = v.data()},
      moves, {this->In(moves), this->In(cosine), this->In(sine), this->Out(k), this->Out(v)});
  this->ExpectNear(k, k32, 4.0f);
  EXPECT_EQ(this->ToFloats(v), v32);
}

TYPED_TEST_P(DeviceElementwiseTest, SiluMultiply) {
  constexpr int kRows = 3;
  for (int size : {2, 1536, 2054, 4104}) {
    auto gate_up = this->Random(kRows * 2 * size, 30.0f);
    using Element = typename TypeParam::Element;
    const float largest = std::is_same_v<Element, Float16> ? 6e4f : 1e37f;
    gate_up[0] = FromFloat<Element>(-largest);  // neither overflows nor becomes NaN
    gate_up[size] = FromFloat<Element>(1.0f);
    gate_up[1] = FromFloat<Element>(largest);
    gate_up[size + 1] = FromFloat<Element>(0.5f);
    std::vector<float> expected(kRows * size);
    chorus::SiluMultiply(this->ToFloats(gate_up).data(), kRows, size, expected.data(), this->pool_);
    auto out = this->Nan(kRows * size);
    TypeParam::Backend::template SiluMultiply<Element>(
        {.gate_up = gate_up.data(), .out = out.data(), .num_rows = kRows, .size = size},
        {this->In(gate_up), this->Out(out)});
    this->ExpectNear(out, expected, 1.0f);
  }
}

TYPED_TEST_P(DeviceElementwiseTest, Embed) {
  constexpr int kVocab = 7;
  const std::vector<int32_t> token_ids = {6, 0, 3, 3};
  for (int size : {2, 600}) {
    const auto table = this->Random(kVocab * size);
    const std::vector<float> table32 = this->ToFloats(table);
    std::vector<float> residual(token_ids.size() * size, std::nanf(""));
    TypeParam::Backend::template Embed<typename TypeParam::Element>(
        {.indexes = token_ids.data(),
         .from = table.data(),
         .to = residual.data(),
         .num_rows = static_cast<int32_t>(token_ids.size()),
         .size = size},
        {this->In(token_ids), this->In(table), this->Out(residual)});
    for (size_t i = 0; i < residual.size(); ++i) {
      ASSERT_EQ(residual[i], table32[token_ids[i / size] * size + i % size]);
    }
  }
}

TYPED_TEST_P(DeviceElementwiseTest, GatherRows) {
  constexpr int kRows = 5;
  const std::vector<int32_t> rows = {4, 1, 4};
  const auto num_rows = static_cast<int32_t>(rows.size());
  for (int size : {2, 600}) {
    const auto from = this->Random(kRows * size);
    const std::vector<float> from32 = this->ToFloats(from);
    auto out = this->Nan(int64_t{num_rows} * size);
    std::vector<float> out32(out.size());
    TypeParam::Backend::template GatherRows<typename TypeParam::Element>(
        {rows.data(), from.data(), out.data(), num_rows, size},
        {this->In(from), this->In(rows), this->Out(out)});
    TypeParam::Backend::template GatherRows<float>(
        {rows.data(), from32.data(), out32.data(), num_rows, size},
        {this->In(from32), this->In(rows), this->Out(out32)});
    for (size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i].bits, from[rows[i / size] * size + i % size].bits);
      ASSERT_EQ(out32[i], from32[rows[i / size] * size + i % size]);
    }
  }
}

TYPED_TEST_P(DeviceElementwiseTest, AddBias) {
  constexpr int kRows = 3;
  for (int size : {2, 600}) {
    auto x = this->Random(kRows * size);
    const std::vector<float> bias = this->ToFloats(this->Random(size));
    std::vector<float> expected = this->ToFloats(x);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % size];
    TypeParam::Backend::template AddBias<typename TypeParam::Element>(
        {x.data(), bias.data(), kRows, size}, {this->Out(x), this->In(bias)});
    this->ExpectNear(x, expected, 1.0f);
  }
}

REGISTER_TYPED_TEST_SUITE_P(DeviceElementwiseTest, AddRmsNorm, RopeAndWriteKv, MoveKv, SiluMultiply,
                            Embed, GatherRows, AddBias);

}  // namespace chorus::device
