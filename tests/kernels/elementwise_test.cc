#include "core/kernels/elementwise.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "core/kernels/bfloat16.h"
#include "tests/kernels/kernel_test_support.h"

namespace chorus {
namespace {

using test::kEpsilon;
using test::KernelTargets;
using test::RandomFloats;
using test::ScopedKernelTarget;

constexpr int32_t kSizes[] = {1, 3, 16, 48, 100, 576, 1537};

// Calls check(pool) for every target and for teams of 1, 2 and 4.
template <typename Check>
void ForEveryTargetAndTeam(const Check& check) {
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    for (int num_threads : {1, 2, 4}) {
      ThreadPool pool(num_threads);
      check(pool);
    }
  }
}

TEST(RmsNormTest, EqualsADoubleReference) {
  constexpr int32_t kRows = 33;
  constexpr float kRmsEpsilon = 1e-5f;
  for (int32_t size : kSizes) {
    SCOPED_TRACE(size);
    std::mt19937 random(size);
    const std::vector<float> x = RandomFloats(int64_t{kRows} * size, random, 4.0f);
    const std::vector<float> weight = RandomFloats(size, random, 2.0f);
    ForEveryTargetAndTeam([&](ThreadPool& pool) {
      std::vector<float> out(x.size());
      RmsNorm(x.data(), weight.data(), kRows, size, kRmsEpsilon, out.data(), pool);
      std::vector<float> in_place = x;
      RmsNorm(in_place.data(), weight.data(), kRows, size, kRmsEpsilon, in_place.data(), pool);
      ASSERT_EQ(in_place, out);
      for (int64_t r = 0; r < kRows; ++r) {
        double sum = 0.0;
        for (int64_t i = 0; i < size; ++i) sum += double{x[r * size + i]} * x[r * size + i];
        const double factor = 1.0 / std::sqrt(sum / size + kRmsEpsilon);
        for (int64_t i = 0; i < size; ++i) {
          const double expected = x[r * size + i] * factor * weight[i];
          // The sum of squares is off by at most size eps, its root by half; then a few roundings.
          ASSERT_NEAR(out[r * size + i], expected, (size + 8) * kEpsilon * std::abs(expected));
        }
      }
    });
  }
}

TEST(AddRmsNormTest, IsTheNormOfTheSum) {
  constexpr int32_t kRows = 20;
  for (int32_t size : kSizes) {
    SCOPED_TRACE(size);
    std::mt19937 random(size);
    const std::vector<float> residual = RandomFloats(int64_t{kRows} * size, random);
    const std::vector<float> delta = RandomFloats(int64_t{kRows} * size, random);
    const std::vector<float> weight = RandomFloats(size, random);
    ForEveryTargetAndTeam([&](ThreadPool& pool) {
      std::vector<float> sum = residual, out(residual.size()), expected(residual.size());
      AddRmsNorm(sum.data(), delta.data(), weight.data(), kRows, size, 1e-5f, out.data(), pool);
      for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], residual[i] + delta[i]);
      RmsNorm(sum.data(), weight.data(), kRows, size, 1e-5f, expected.data(), pool);
      ASSERT_EQ(out, expected);
    });
  }
}

TEST(RmsNormTest, ARowIsTheSameBitForBitInEveryBatch) {
  constexpr int32_t kRows = 64, kSize = 579;
  std::mt19937 random(1);
  const std::vector<float> x = RandomFloats(int64_t{kRows} * kSize, random);
  const std::vector<float> weight = RandomFloats(kSize, random);
  ForEveryTargetAndTeam([&](ThreadPool& pool) {
    std::vector<float> all(x.size()), alone(kSize);
    RmsNorm(x.data(), weight.data(), kRows, kSize, 1e-5f, all.data(), pool);
    for (int64_t r = 0; r < kRows; ++r) {
      RmsNorm(x.data() + r * kSize, weight.data(), 1, kSize, 1e-5f, alone.data(), pool);
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + r * kSize));
    }
  });
}

TEST(SiluMultiplyTest, EqualsADoubleReference) {
  constexpr int32_t kRows = 17;
  for (int32_t size : kSizes) {
    SCOPED_TRACE(size);
    std::mt19937 random(size);
    std::vector<float> gate_up = RandomFloats(int64_t{kRows} * 2 * size, random, 20.0f);
    gate_up[0] = -1000.0f;  // exp overflows
    gate_up[2 * size] = -std::numeric_limits<float>::max() / 16.0f;
    ForEveryTargetAndTeam([&](ThreadPool& pool) {
      std::vector<float> out(int64_t{kRows} * size);
      SiluMultiply(gate_up.data(), kRows, size, out.data(), pool);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t i = 0; i < size; ++i) {
          const double gate = gate_up[r * 2 * size + i], up = gate_up[r * 2 * size + size + i];
          const double expected = gate / (1.0 + std::exp(-gate)) * up;
          // exp is good to 4 units in the last place, and to the least normal number.
          ASSERT_NEAR(out[r * size + i], expected,
                      16 * kEpsilon * std::abs(expected) + std::abs(gate * up) * 0x1p-126);
        }
      }
    });
  }
}

struct RopeCase {
  AttentionShape shape;
  KvType type;
};

const RopeCase kRopeCases[] = {
    {{4, 4, 16, 0.0f}, KvType::kFloat32},   {{6, 2, 32, 0.0f}, KvType::kBFloat16},
    {{9, 3, 64, 0.0f}, KvType::kFloat32},   {{9, 3, 64, 0.0f}, KvType::kBFloat16},
    {{24, 8, 128, 0.0f}, KvType::kBFloat16}, {{4, 1, 10, 0.0f}, KvType::kBFloat16}};

std::string RopeCaseName(const testing::TestParamInfo<RopeCase>& info) {
  return "Heads" + std::to_string(info.param.shape.num_heads) + "Dim" +
         std::to_string(info.param.shape.head_dim) +
         (info.param.type == KvType::kFloat32 ? "Float32" : "BFloat16");
}

class RopeTest : public testing::TestWithParam<RopeCase> {
 protected:
  static constexpr int32_t kRows = 40, kMaxPositions = 300, kSlots = 64;

  void SetUp() override {
    const AttentionShape& shape = GetParam().shape;
    std::mt19937 random(shape.head_dim);
    half_ = shape.head_dim / 2;
    qkv_ = RandomFloats(kRows * RowSize(), random, 3.0f);
    cosine_.resize(kMaxPositions * half_);
    sine_.resize(cosine_.size());
    for (int64_t p = 0; p < kMaxPositions; ++p) {
      for (int64_t i = 0; i < half_; ++i) {
        const double angle = p * std::pow(10000.0, -static_cast<double>(i) / half_);
        cosine_[p * half_ + i] = static_cast<float>(std::cos(angle));
        sine_[p * half_ + i] = static_cast<float>(std::sin(angle));
      }
    }
    for (int32_t r = 0; r < kRows; ++r) {
      positions_.push_back(static_cast<int32_t>(random() % kMaxPositions));
      slots_.push_back((r * 37 + 5) % kSlots);  // distinct: 37 and 64 are coprime
    }
  }

  int64_t RowSize() const {
    const AttentionShape& shape = GetParam().shape;
    return int64_t{shape.num_heads + 2 * shape.num_kv_heads} * shape.head_dim;
  }

  // Element i of the rotated head that begins at `head`.
  double Rotated(const float* head, int32_t row, int64_t i) const {
    const int64_t j = i % half_;
    const double cosine = cosine_[positions_[row] * half_ + j];
    const double sine = sine_[positions_[row] * half_ + j];
    return i < half_ ? head[j] * cosine - head[j + half_] * sine
                     : head[j + half_] * cosine + head[j] * sine;
  }

  int64_t half_ = 0;
  std::vector<float> qkv_, cosine_, sine_;
  std::vector<int32_t> positions_, slots_;
};

float KvElement(const KvView& kv, const void* base, int64_t index) {
  if (kv.type == KvType::kFloat32) return static_cast<const float*>(base)[index];
  return FloatFromBFloat16(static_cast<const uint16_t*>(base)[index]);
}

TEST_P(RopeTest, RotatesQueriesAndKeysAndWritesOnlyTheirSlots) {
  const RopeCase& test = GetParam();
  const AttentionShape& shape = test.shape;
  const int64_t head_dim = shape.head_dim;
  const int64_t q_size = shape.num_heads * head_dim, kv_size = shape.num_kv_heads * head_dim;
  // Products of at most 3, three roundings; bfloat16 keeps 8 bits of the result.
  const double tolerance = 3 * 6 * kEpsilon;
  const double kv_relative = test.type == KvType::kBFloat16 ? 0x1p-8 : 0.0;
  ForEveryTargetAndTeam([&](ThreadPool& pool) {
    test::KvStore store(test.type, kSlots, shape);
    const KvView kv = store.view();
    std::vector<float> q_out(kRows * q_size, std::nanf(""));
    RopeArgs args{shape,         qkv_.data(),  positions_.data(),
                  slots_.data(), kRows,        cosine_.data(),
                  sine_.data(),  q_out.data(), kv};
    RopeAndWriteKv(args, pool);
    std::vector<bool> written(kSlots, false);
    for (int32_t r = 0; r < kRows; ++r) {
      const float* row = qkv_.data() + r * RowSize();
      written[slots_[r]] = true;
      for (int64_t i = 0; i < q_size; ++i) {
        const double expected = Rotated(row + i / head_dim * head_dim, r, i % head_dim);
        ASSERT_NEAR(q_out[r * q_size + i], expected, tolerance);
      }
      for (int64_t i = 0; i < kv_size; ++i) {
        const float* k_row = row + q_size;
        const double k = Rotated(k_row + i / head_dim * head_dim, r, i % head_dim);
        const int64_t index = slots_[r] * kv_size + i;
        ASSERT_NEAR(KvElement(kv, kv.k, index), k, tolerance + kv_relative * std::abs(k));
        const float v = k_row[kv_size + i];
        const float kept =
            test.type == KvType::kBFloat16 ? FloatFromBFloat16(BFloat16FromFloat(v)) : v;
        ASSERT_EQ(KvElement(kv, kv.v, index), kept);
      }
    }
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      if (written[slot]) continue;
      ASSERT_TRUE(std::isnan(KvElement(kv, kv.k, slot * kv_size)));
      ASSERT_TRUE(std::isnan(KvElement(kv, kv.v, slot * kv_size + kv_size - 1)));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest, testing::ValuesIn(kRopeCases), RopeCaseName);

// A key store with every row's key and value, as RopeAndWriteKv writes them at positions_.
class MoveKvTest : public RopeTest {
 protected:
  static constexpr int32_t kStoreSlots = 3 * kSlots;

  void SetUp() override {
    RopeTest::SetUp();
    std::mt19937 random(7);
    for (int32_t r = 0; r < kRows; ++r) {
      const int32_t most = kMaxPositions - 1 - positions_[r];
      const int32_t distance = r < 3 ? 0 : static_cast<int32_t>(random() % (most + 1));
      moves_.push_back({slots_[r], kSlots + 2 * slots_[r], distance});
    }
  }

  test::KvStore Written(ThreadPool& pool) const {
    const AttentionShape& shape = GetParam().shape;
    test::KvStore store(GetParam().type, kStoreSlots, shape);
    std::vector<float> q_out(int64_t{kRows} * shape.num_heads * shape.head_dim);
    const RopeArgs args{shape,         qkv_.data(),  positions_.data(),
                        slots_.data(), kRows,        cosine_.data(),
                        sine_.data(),  q_out.data(), store.view()};
    RopeAndWriteKv(args, pool);
    return store;
  }

  void Move(test::KvStore& store, ThreadPool& pool) const {
    const MoveKvArgs args{GetParam().shape, moves_.data(), kRows,
                          cosine_.data(),   sine_.data(),  store.view()};
    MoveKv(args, pool);
  }

  // All bytes of keys or values.
  std::string Bytes(const void* base) const {
    const AttentionShape& shape = GetParam().shape;
    const int64_t element = GetParam().type == KvType::kFloat32 ? 4 : 2;
    return {static_cast<const char*>(base),
            static_cast<size_t>(kStoreSlots * element * shape.num_kv_heads * shape.head_dim)};
  }

  std::vector<KvMove> moves_;
};

TEST_P(MoveKvTest, AMovedKeyIsTheKeyOfTheLaterPosition) {
  const AttentionShape& shape = GetParam().shape;
  const int64_t head_dim = shape.head_dim, kv_size = shape.num_kv_heads * head_dim;
  // Elements of at most 3: two turns, each of four roundings and two of its tables, the second on
  // elements of at most 3 sqrt(2), and the first one's error turned with them.
  const double tolerance = 2 * 3 * 12 * kEpsilon;
  const double rounding = GetParam().type == KvType::kBFloat16 ? 0x1.04p-8 : 0.0;
  ForEveryTargetAndTeam([&](ThreadPool& pool) {
    test::KvStore store = Written(pool);
    Move(store, pool);
    const KvView kv = store.view();
    for (int32_t r = 0; r < kRows; ++r) {
      const float* k_row = qkv_.data() + r * RowSize() + shape.num_heads * head_dim;
      for (int64_t i = 0; i < kv_size; ++i) {
        const float* head = k_row + i / head_dim * head_dim;
        const int64_t j = i % half_;
        const double angle = (positions_[r] + moves_[r].distance) *
                             std::pow(10000.0, -static_cast<double>(j) / half_);
        const double x1 = head[j], x2 = head[j + half_];
        const double expected = i % head_dim < half_
                                    ? x1 * std::cos(angle) - x2 * std::sin(angle)
                                    : x2 * std::cos(angle) + x1 * std::sin(angle);
        // To eight bits: both elements as they were written, and the result.
        const double rounded = rounding * (std::hypot(x1, x2) + std::abs(expected));
        ASSERT_NEAR(KvElement(kv, kv.k, moves_[r].to_slot * kv_size + i), expected,
                    tolerance + rounded);
      }
    }
  });
}

TEST_P(MoveKvTest, CopiesValuesAndTouchesNothingElse) {
  const int64_t kv_size = GetParam().shape.num_kv_heads * GetParam().shape.head_dim;
  ForEveryTargetAndTeam([&](ThreadPool& pool) {
    test::KvStore store = Written(pool);
    std::string k = Bytes(store.view().k), v = Bytes(store.view().v);
    Move(store, pool);
    const std::string k_after = Bytes(store.view().k), v_after = Bytes(store.view().v);
    const size_t slot_bytes = k.size() / kStoreSlots;
    ASSERT_EQ(slot_bytes, kv_size * (GetParam().type == KvType::kFloat32 ? 4u : 2u));
    for (const KvMove& move : moves_) {
      const size_t from = move.from_slot * slot_bytes, to = move.to_slot * slot_bytes;
      v.replace(to, slot_bytes, v, from, slot_bytes);
      // A key that is moved by nothing is itself; others are looked at above.
      const std::string& key = move.distance == 0 ? k : k_after;
      k.replace(to, slot_bytes, key, move.distance == 0 ? from : to, slot_bytes);
    }
    ASSERT_TRUE(v == v_after);
    ASSERT_TRUE(k == k_after);
  });
}

TEST_P(MoveKvTest, AnyTeamGivesTheSameBits) {
  for (int64_t target : KernelTargets()) {
    SCOPED_TRACE(test::KernelTargetName(target));
    const ScopedKernelTarget scoped(target);
    std::string expected;
    for (int num_threads : {1, 2, 4}) {
      ThreadPool pool(num_threads);
      test::KvStore store = Written(pool);
      Move(store, pool);
      const std::string bytes = Bytes(store.view().k) + Bytes(store.view().v);
      if (expected.empty()) expected = bytes;
      ASSERT_TRUE(bytes == expected) << num_threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, MoveKvTest, testing::ValuesIn(kRopeCases), RopeCaseName);

// Values go through a vector path and a scalar tail; both must round as BFloat16FromFloat does.
TEST(RopeBFloat16Test, RoundsToNearestEvenInEveryLane) {
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  const float kSignalling = std::bit_cast<float>(0x7F800001u);
  const std::vector<float> special = {0x1.01p0f,   0x1.03p0f, 0x1.010002p0f,   -0x1.03p0f, 0.0f,
                                      -0.0f,       INFINITY,  -INFINITY,       kNan,       -kNan,
                                      kSignalling, 0x1p-140f, 0x1.fffffep127f, 1e-30f,     -7.0f};
  const AttentionShape shape{1, 1, 62, 1.0f};
  std::vector<float> qkv(3 * 62, 0.0f);
  for (int i = 0; i < 62; ++i) qkv[2 * 62 + i] = special[i % special.size()];
  const std::vector<float> cosine(31, 1.0f), sine(31, 0.0f);
  const int32_t zero = 0;
  ForEveryTargetAndTeam([&](ThreadPool& pool) {
    test::KvStore store(KvType::kBFloat16, 1, shape);
    std::vector<float> q_out(62);
    RopeArgs args{shape,         qkv.data(),  &zero,        &zero,       1,
                  cosine.data(), sine.data(), q_out.data(), store.view()};
    RopeAndWriteKv(args, pool);
    for (int i = 0; i < 62; ++i) {
      ASSERT_EQ(static_cast<const uint16_t*>(store.view().v)[i], BFloat16FromFloat(qkv[2 * 62 + i]))
          << i;
    }
  });
}

TEST(ElementwiseDeathTest, SlotsOutsideTheStoreAreOurOwnBug) {
  const AttentionShape shape{1, 1, 2, 1.0f};
  test::KvStore store(KvType::kFloat32, 1, shape);
  const float values[6] = {}, one = 1.0f;
  const int32_t zero = 0, slot = 1;
  float q_out[2];
  ThreadPool pool(1);
  const RopeArgs args{shape, values, &zero, &slot, 1, &one, &one, q_out, store.view()};
  EXPECT_DEATH(RopeAndWriteKv(args, pool), "slots");
  for (const KvMove& move : {KvMove{0, 1, 0}, KvMove{-1, 0, 0}}) {
    const MoveKvArgs moves{shape, &move, 1, &one, &one, store.view()};
    EXPECT_DEATH(MoveKv(moves, pool), "slot");
  }
}

}  // namespace
}  // namespace chorus
