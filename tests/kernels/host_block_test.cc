#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/kernels/cuda/device.h"

namespace chorus::device {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

TEST(DeviceTypesTest, SixteenBitFloatsRoundToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7C00; ++bits) {  // every finite half, and what lies between
    const float value = ToFloat(Float16{static_cast<uint16_t>(bits)});
    EXPECT_EQ(FromFloat<Float16>(value).bits, bits);
    if (bits + 1 == 0x7C00) break;
    const float next = ToFloat(Float16{static_cast<uint16_t>(bits + 1)});
    const float middle = (value + next) / 2;
    EXPECT_EQ(FromFloat<Float16>(middle).bits, bits + (bits & 1));
    EXPECT_EQ(FromFloat<Float16>(-std::nextafter(middle, next)).bits, 0x8000 | (bits + 1));
  }
  EXPECT_EQ(FromFloat<Float16>(65520.0f).bits, 0x7C00);
  EXPECT_EQ(FromFloat<Float16>(65519.0f).bits, 0x7BFF);
  EXPECT_EQ(FromFloat<Float16>(1e-9f).bits, 0);
}

// Each fault below would be a bug that only some runs on a GPU show.
class HostBlockTest : public testing::Test {
 protected:
  std::string FaultOf(const std::function<void()>& thread) {
    const HostArray arrays[] = {{data_.data(), 256, false}};
    const HostLaunch launch = {
        .num_threads = 64, .shared_bytes = 1024, .arrays = arrays, .num_arrays = 1};
    return RunOnHost(launch, thread);
  }
  static bool IsFirst() { return ThreadIndex() == 0; }
  // Copies 16 bytes by the first thread; committed.
  void Copy() {
    if (IsFirst()) CopyAsync16(0, data_.data(), true);
    CopyAsyncCommit();
  }

  alignas(16) std::array<float, 64> data_ = {1.0f, 2.0f, 3.0f, 4.0f};
};

TEST_F(HostBlockTest, SharedMemoryIsReadAfterABarrierOnly) {
  EXPECT_THAT(FaultOf([] { LoadShared(16); }), HasSubstr("never written"));
  EXPECT_THAT(FaultOf([] { StoreShared(0, 1.0f); }), HasSubstr("wrote since the last barrier"));
  // As the reader comes before or after the writer.
  EXPECT_THAT(FaultOf([] {
                if (IsFirst()) {
                  StoreShared(0, 1.0f);
                } else {
                  LoadShared(0);
                }
              }),
              AnyOf(HasSubstr("never written"), HasSubstr("wrote since the last barrier")));
  EXPECT_THAT(FaultOf([] {
                if (IsFirst()) StoreShared(0, 1.0f);
                SyncThreads();
                if (IsFirst()) {
                  StoreShared(0, 2.0f);
                } else {
                  LoadShared(0);
                }
              }),
              AnyOf(HasSubstr("others read"), HasSubstr("wrote since the last barrier")));
  EXPECT_EQ(FaultOf([] {
              if (IsFirst()) StoreShared(0, 1.0f);
              SyncThreads();
              EXPECT_EQ(LoadShared(0), 1.0f);
              SyncThreads();
              if (IsFirst()) StoreShared(0, 2.0f);
            }),
            "");
}

TEST_F(HostBlockTest, ACopyIsThereForItsThreadAfterTheWaitAndForOthersAfterABarrier) {
  EXPECT_THAT(FaultOf([&] {
                Copy();
                if (IsFirst()) LoadShared(0);
                CopyAsyncWait<0>();
              }),
              HasSubstr("copy is under way"));
  EXPECT_THAT(FaultOf([&] {
                Copy();
                CopyAsyncWait<0>();
                if (!IsFirst()) LoadShared(0);
              }),
              AnyOf(HasSubstr("never written"), HasSubstr("wrote since the last barrier")));
  EXPECT_THAT(FaultOf([&] {
                Copy();
                CopyAsyncCommit();  // an empty group: the copy's is not the newest
                CopyAsyncWait<1>();
                SyncThreads();
                EXPECT_EQ(LoadShared(8), 3.0f);
              }),
              "");
  EXPECT_THAT(FaultOf([&] { Copy(); }), HasSubstr("ended before its copies"));
}

TEST_F(HostBlockTest, AddressesAreChecked) {
  EXPECT_THAT(FaultOf([] { StoreShared(1024, 1.0f); }), HasSubstr("outside the block"));
  EXPECT_THAT(FaultOf([] { StoreShared(2, 1.0f); }), HasSubstr("not aligned"));
  EXPECT_THAT(FaultOf([&] { LoadGlobal(data_.data() + 64); }), HasSubstr("outside the launch"));
  EXPECT_THAT(FaultOf([&] { StoreGlobal(data_.data(), 2.0f); }), HasSubstr("read-only"));
  EXPECT_THAT(FaultOf([&] { CopyAsync16(0, data_.data() + 1, true); }), HasSubstr("not aligned"));
  float pair[2];
  EXPECT_THAT(FaultOf([&] { LoadGlobalFloats(data_.data() + 1, pair); }), HasSubstr("not aligned"));
  EXPECT_EQ(FaultOf([&] { LoadGlobalFloats(data_.data() + 2, pair); }), "");
  EXPECT_EQ(pair[0], 3.0f);
  EXPECT_EQ(pair[1], 4.0f);
}

TEST_F(HostBlockTest, AddsMeetNothingButAddsBetweenBarriers) {
  const auto clear = [] {
    if (IsFirst()) StoreShared64(0, uint64_t{1} << 33);
    SyncThreads();
  };
  EXPECT_EQ(FaultOf([&] {
              clear();
              AddShared64(0, ~uint64_t{0});  // less one
              SyncThreads();
              EXPECT_EQ(LoadShared64(0), (uint64_t{1} << 33) - 64);
              EXPECT_EQ(LoadShared32(4), 1u);
            }),
            "");
  EXPECT_THAT(FaultOf([] { AddShared32(0, 1); }), HasSubstr("holds no value"));
  EXPECT_THAT(FaultOf([&] {
                clear();
                if (IsFirst()) {
                  LoadShared32(4);
                } else {
                  AddShared64(0, 1);
                }
              }),
              AnyOf(HasSubstr("read or written"), HasSubstr("several threads wrote")));
  EXPECT_THAT(FaultOf([&] {
                clear();
                if (IsFirst()) {
                  StoreShared32(0, 7);
                } else {
                  AddShared32(0, 1);
                }
              }),
              AnyOf(HasSubstr("read or written"), HasSubstr("several threads wrote")));
}

TEST_F(HostBlockTest, Shuffles) {
  EXPECT_EQ(FaultOf([] {
              const int lane = ThreadIndex() % kWarpSize;
              EXPECT_EQ(ShuffleFrom(static_cast<float>(lane), (lane + 5) % 32), (lane + 5) % 32);
              const uint64_t value = (uint64_t{1} << 40) + lane;
              EXPECT_EQ(ShuffleUp(value, 4), value - (lane < 4 ? 0 : 4));
              EXPECT_EQ(ShuffleXor(value, 3), (uint64_t{1} << 40) + (lane ^ 3));
              EXPECT_EQ(ShuffleXor(0.5 + lane, 1), 0.5 + (lane ^ 1));
              EXPECT_EQ(ShuffleXor(-lane, 16), -(lane ^ 16));
              EXPECT_EQ(MultiplyHigh(~uint64_t{0}, uint64_t{1} << 63), ~uint64_t{0} >> 1);
            }),
            "");
}

TEST_F(HostBlockTest, ThreadsMustMeet) {
  EXPECT_THAT(FaultOf([] {
                if (!IsFirst()) SyncThreads();
              }),
              HasSubstr("63 threads wait for others, 1 have ended"));
  EXPECT_THAT(FaultOf([] {
                float c[4] = {};
                if (IsFirst()) {
                  ShuffleXor(1.0f, 1);
                } else {
                  Mma<BFloat16>(c, {0, 0, 0, 0}, 0, 0);
                }
              }),
              HasSubstr("different collectives"));
}

// D = A B + C with A[i][k] = 16 i + k, B[k][n] = (k == n): the fragment layout of the PTX ISA.
TEST_F(HostBlockTest, MmaHasTheLayoutOfTheInstruction) {
  EXPECT_EQ(FaultOf([] {
              const int lane = ThreadIndex() % kWarpSize, g = lane / 4, t = lane % 4;
              const auto a_at = [&](int row, int column) {
                return PackPair<Float16>(16.0f * row + column, 16.0f * row + column + 1);
              };
              const auto b_at = [&](int k) {
                return PackPair<Float16>(k == g ? 1.0f : 0.0f, k + 1 == g ? 1.0f : 0.0f);
              };
              float c[4] = {0.5f, 0.5f, 0.5f, 0.5f};
              Mma<Float16>(
                  c,
                  {a_at(g, 2 * t), a_at(g + 8, 2 * t), a_at(g, 2 * t + 8), a_at(g + 8, 2 * t + 8)},
                  b_at(2 * t), b_at(2 * t + 8));
              EXPECT_EQ(c[0], 16.0f * g + 2 * t + 0.5f);
              EXPECT_EQ(c[1], 16.0f * g + 2 * t + 1.5f);
              EXPECT_EQ(c[2], 16.0f * (g + 8) + 2 * t + 0.5f);
              EXPECT_EQ(c[3], 16.0f * (g + 8) + 2 * t + 1.5f);
            }),
            "");
}

}  // namespace
}  // namespace chorus::device
