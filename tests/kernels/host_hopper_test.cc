// The simulated block finds what is wrong with barriers in shared memory, tensor copies and wgmma.
// Each fault below would be a hang or a bug that only some runs on a GPU show.
#include <bit>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/kernels/cuda/hopper.h"

namespace chorus::device {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

constexpr int kSharedBytes = 64 << 10;
constexpr SharedAddress kFull = 0, kEmpty = 8;  // mbarriers; matrices from kMatrix on
constexpr SharedAddress kMatrix = 1024;
constexpr int kNumStages = 3;  // blocks that one stage of 16 bytes hands over, one after the other

// Two warpgroups: the first produces, the second consumes.
class HostHopperTest : public testing::Test {
 protected:
  std::string FaultOf(const std::function<void()>& thread, uint32_t seed = 1) {
    const HostArray arrays[] = {
        {data_.data(), static_cast<int64_t>(data_.size() * sizeof(float)), false}};
    const HostLaunch launch = {.num_threads = 256,
                               .shared_bytes = kSharedBytes,
                               .seed = seed,
                               .arrays = arrays,
                               .num_arrays = 1};
    return RunOnHost(launch, thread);
  }
  static bool IsProducer() { return ThreadIndex() < kWarpgroupSize; }
  static bool IsFirst() { return ThreadIndex() == 0; }

  // What one step of a pipeline leaves out.
  struct Omission {
    bool full_wait = false, empty_wait = false, arrival = false, making_known = false;
  };
  // One thread copies, all of the second warpgroup read, one stage of 16 bytes.
  std::string FaultOfPipeline(const Omission& omission, uint32_t seed = 1) {
    return FaultOf(
        [&] {
          if (IsFirst()) {
            InitMbarrier(kFull, 1);
            InitMbarrier(kEmpty, kWarpgroupSize);
          }
          if (!omission.making_known) SyncThreads();
          for (int i = 0; i < kNumStages; ++i) {
            if (IsFirst()) {
              if (!omission.empty_wait) WaitForPhase(kEmpty, (i & 1) ^ 1);
              CopyAsync16(kMatrix, data_.data() + 4 * i, true);
              ArriveAfterCopies(kFull);
            } else if (!IsProducer()) {
              if (!omission.full_wait) WaitForPhase(kFull, i & 1);
              EXPECT_EQ(LoadShared(kMatrix + 4), data_[4 * i + 1]);
              if (!omission.arrival) Arrive(kEmpty);
            }
          }
        },
        seed);
  }

  std::vector<float> data_ = std::vector<float>(4096, 1.0f);
};

TEST_F(HostHopperTest, AnMbarrierHandsOverAndBack) {
  for (size_t i = 0; i < data_.size(); ++i) data_[i] = static_cast<float>(i);
  for (uint32_t seed = 1; seed < 5; ++seed) {
    EXPECT_EQ(FaultOfPipeline({}, seed), "");
    EXPECT_THAT(FaultOfPipeline({.full_wait = true}, seed),
                AnyOf(HasSubstr("never written"), HasSubstr("copy is under way"),
                      HasSubstr("wrote since the last barrier")));
    EXPECT_THAT(FaultOfPipeline({.empty_wait = true}, seed),
                AnyOf(HasSubstr("others read"), HasSubstr("copy is under way")));
    EXPECT_THAT(FaultOfPipeline({.making_known = true}, seed),
                AnyOf(HasSubstr("no mbarrier"), HasSubstr("wrote since the last barrier")));
  }
}

TEST_F(HostHopperTest, APhaseThatNeverEndsIsReported) {
  EXPECT_THAT(FaultOfPipeline({.arrival = true}),
              AllOf(HasSubstr("threads wait for others"), HasSubstr("a phase of an mbarrier")));
  EXPECT_THAT(FaultOf([&] {
                if (IsFirst()) {
                  InitMbarrier(kFull, 1);
                  ArriveExpectingBytes(kFull, 16);
                  WaitForPhase(kFull, 0);
                }
              }),
              HasSubstr("a phase of an mbarrier"));
}

// Matrices of small integers, exact in 16 bits and in float32 sums.
int AAt(int row, int k) { return (row * 5 + k * 3) % 7 - 3; }
int BAt(int k, int column) { return (k * 2 + column * 11) % 9 - 4; }

// Which bug a multiplication has.
enum class Bug {
  kNone,
  kWrongStride,
  kNotSwizzled,
  kWrongLeading,
  kNoFence,
  kNoProxyFence,
  kNoWait,
  kReleasedEarly,
  kOtherSwizzle,
  kRegisterChanged,
};

// One wgmma of the second warpgroup, whose matrices the first stored: A [64, 16] in shared memory
// or registers times B [16, 128], K-major rows of 128 bytes, or MN-major in two columns of 64.
class WgmmaRun {
 public:
  WgmmaRun(bool has_a_registers, Bug bug) : has_a_registers_(has_a_registers), bug_(bug) {}

  void Run() {
    if (ThreadIndex() == 0) InitMbarrier(kEmpty, 4);
    if (ThreadIndex() < kWarpgroupSize) Store();
    if (bug_ != Bug::kNoProxyFence) FenceAsyncProxy();
    SyncThreads();
    if (ThreadIndex() >= kWarpgroupSize) {
      Multiply();
    } else if (ThreadIndex() == 0) {
      WaitForPhase(kEmpty, 0);
      StoreShared(kB, 0.0f);
    }
  }

  bool is_right() const { return is_right_; }

 private:
  static constexpr SharedAddress kA = kMatrix, kB = kMatrix + 64 * 128;

  // By the ISA's picture of the layout: row r of an atom of eight at 128 r, and in it piece p at
  // 16 (p ^ r).
  SharedAddress At(SharedAddress matrix, int row, int byte) const {
    const int piece = bug_ == Bug::kNotSwizzled ? byte / 16 : (byte / 16) ^ (row % 8);
    return matrix + row * 128 + piece * 16 + byte % 16;
  }
  static void StorePair(SharedAddress to, int low, int high) {
    const uint32_t pair = PackPair<BFloat16>(static_cast<float>(low), static_cast<float>(high));
    StoreShared(to, std::bit_cast<float>(pair));
  }

  void Store() const {
    for (int i = ThreadIndex(); i < 64 * 8; i += kWarpgroupSize) {
      const int row = i / 8, k = i % 8 * 2;
      StorePair(At(kA, row, 2 * k), AAt(row, k), AAt(row, k + 1));
    }
    for (int i = ThreadIndex(); i < 128 * 8; i += kWarpgroupSize) {
      if (has_a_registers_) {  // MN-major: rows are k, 64 columns of 2 bytes each
        const int k = i / 64, column = i % 64 * 2;
        StorePair(At(kB + column / 64 * 16 * 128, k, column % 64 * 2), BAt(k, column),
                  BAt(k, column + 1));
      } else {
        const int column = i / 8, k = i % 8 * 2;
        StorePair(At(kB, column, 2 * k), BAt(k, column), BAt(k + 1, column));
      }
    }
  }

  uint64_t MatrixB() const {
    const int stride = bug_ == Bug::kWrongStride ? 512 : 1024;
    const int leading = bug_ == Bug::kWrongLeading ? 1024 : 16 * 128;
    const uint64_t matrix = SwizzledMatrix(kB, leading, stride);
    return bug_ == Bug::kOtherSwizzle ? matrix | uint64_t{2} << 62 : matrix;
  }

  void Multiply() {
    const int lane = ThreadIndex() % kWarpSize, row = ThreadIndex() / kWarpSize % 4 * 16 + lane / 4;
    float d[16][4] = {};
    d[3][2] = 1.0f;  // what is there is added to
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) {
      const int a_row = row + i % 2 * 8, k = 2 * (lane % 4) + i / 2 * 8;
      a[i] = PackPair<BFloat16>(static_cast<float>(AAt(a_row, k)),
                                static_cast<float>(AAt(a_row, k + 1)));
    }
    if (bug_ != Bug::kNoFence) WgmmaFence();
    if (has_a_registers_) {
      WgmmaRegisters<BFloat16>(d, a, MatrixB(), true);
    } else {
      WgmmaShared<BFloat16>(d, SwizzledMatrix(kA, 16, 1024), MatrixB(), true);
    }
    WgmmaCommit();
    if (bug_ == Bug::kRegisterChanged) a[0] = 0;
    if (bug_ == Bug::kReleasedEarly && lane == 0) Arrive(kEmpty);
    if (bug_ == Bug::kNoWait) {
      WgmmaWait<1>();  // one may be under way still
      for (const auto& tile : d) is_right_ = is_right_ && tile[0] == tile[0];
      WgmmaResult(d);
    }
    WgmmaWait<0>();
    WgmmaResult(d);
    if (bug_ != Bug::kReleasedEarly && lane == 0) Arrive(kEmpty);
    for (int i = 0; i < 64; ++i) {
      const int d_row = row + i % 4 / 2 * 8, column = i / 4 * 8 + 2 * (lane % 4) + i % 2;
      int expected = i == 4 * 3 + 2 ? 1 : 0;
      for (int k = 0; k < 16; ++k) expected += AAt(d_row, k) * BAt(k, column);
      is_right_ = is_right_ && d[i / 4][i % 4] == static_cast<float>(expected);
    }
  }

  const bool has_a_registers_;
  const Bug bug_;
  bool is_right_ = true;
};

class WgmmaTest : public HostHopperTest, public testing::WithParamInterface<bool> {
 protected:
  // "" if all is right, "wrong" if the numbers are not, or the fault.
  std::string OutcomeOf(Bug bug, uint32_t seed = 1) {
    WgmmaRun run(GetParam(), bug);
    const std::string fault = FaultOf([&] { run.Run(); }, seed);
    if (!fault.empty()) return fault;
    return run.is_right() ? "" : "wrong";
  }
};

TEST_P(WgmmaTest, MultipliesMatricesInTheSwizzledLayout) {
  for (uint32_t seed = 1; seed < 4; ++seed) EXPECT_EQ(OutcomeOf(Bug::kNone, seed), "");
}

TEST_P(WgmmaTest, AWrongDescriptorOrSwizzleIsFound) {
  EXPECT_THAT(OutcomeOf(Bug::kWrongStride), AnyOf("wrong", HasSubstr("never written")));
  EXPECT_THAT(OutcomeOf(Bug::kNotSwizzled), AnyOf("wrong", HasSubstr("never written")));
  EXPECT_THAT(OutcomeOf(Bug::kOtherSwizzle), HasSubstr("not of the 128-byte swizzle"));
  if (GetParam()) {
    EXPECT_THAT(OutcomeOf(Bug::kWrongLeading), AnyOf("wrong", HasSubstr("never written")));
  }
}

TEST_P(WgmmaTest, AMissingFenceOrWaitIsFound) {
  EXPECT_THAT(OutcomeOf(Bug::kNoFence), HasSubstr("without a fence"));
  EXPECT_THAT(OutcomeOf(Bug::kNoProxyFence), HasSubstr("no proxy fence"));
  EXPECT_THAT(OutcomeOf(Bug::kNoWait), HasSubstr("has not waited for"));
  if (GetParam()) {
    EXPECT_THAT(OutcomeOf(Bug::kRegisterChanged), HasSubstr("changed a register"));
  }
}

TEST_P(WgmmaTest, AStageMayNotBeGivenBackBeforeTheWait) {
  for (uint32_t seed = 1; seed < 5; ++seed) {
    EXPECT_THAT(OutcomeOf(Bug::kReleasedEarly, seed),
                AnyOf(HasSubstr("which a wgmma under way reads"), HasSubstr("others read")));
  }
}

INSTANTIATE_TEST_SUITE_P(Operands, WgmmaTest, testing::Bool(), [](const auto& info) {
  return info.param ? "WeightsInRegistersTimesMnMajor" : "SharedTimesKMajor";
});

// A [8 rows, 2 heads, 64] array; the box of rows 2..9 of head 1, of which two are past its end.
TEST_F(HostHopperTest, ABoxLiesSwizzledWithZerosPastTheArray) {
  for (size_t i = 0; i < data_.size(); ++i) data_[i] = static_cast<float>(i);
  const TensorMap map = {data_.data(), {64, 2, 8}, 8};
  const auto run = [&](int num_bytes, bool waits) {
    return FaultOf([&, num_bytes, waits] {
      if (IsFirst()) InitMbarrier(kFull, 1);
      SyncThreads();
      if (IsFirst()) {
        ArriveExpectingBytes(kFull, num_bytes);
        CopyBox(kMatrix, map, 0, 1, 2, kFull);
      }
      if (waits) WaitForPhase(kFull, 0);
      if (!IsProducer()) {
        for (int row = 0; row < 8; ++row) {
          for (int word = 0; word < 32; ++word) {
            const SharedAddress at = kMatrix + row * 128 + ((word / 4) ^ row) * 16 + word % 4 * 4;
            const float value = LoadShared(at);  // or a fault
            EXPECT_EQ(value, row < 6 ? data_[((row + 2) * 2 + 1) * 32 + word] : 0.0f);
          }
        }
      }
    });
  };
  EXPECT_EQ(run(1024, true), "");
  EXPECT_THAT(run(1024, false), AnyOf(HasSubstr("never written"), HasSubstr("copy is under way")));
  EXPECT_THAT(run(2048, true), HasSubstr("a phase of an mbarrier"));
}

TEST_F(HostHopperTest, ShufflesAndVotesAreOfTheWholeWarp) {
  EXPECT_EQ(FaultOf([] {
              const int lane = ThreadIndex() % kWarpSize;
              EXPECT_EQ(ShuffleFrom(3 * lane, 7), 21);
              EXPECT_EQ(ShuffleFrom(lane, lane ^ 5), lane ^ 5);
              EXPECT_TRUE(VoteAll(lane >= 0));
              EXPECT_FALSE(VoteAll(lane != 9));
            }),
            "");
  EXPECT_THAT(FaultOf([] {
                if (ThreadIndex() % kWarpSize < 5) ShuffleFrom(1, 0);
              }),
              HasSubstr("wait for others"));
}

}  // namespace
}  // namespace chorus::device
