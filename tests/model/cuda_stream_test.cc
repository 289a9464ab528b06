#include "core/model/cuda/cuda_stream.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/check.h"
#include "core/kernels/bfloat16.h"
#include "core/model/cuda/settle_algorithms.h"
#include "tests/model/fake_cuda.h"

namespace chorus {
namespace {

using testing::HasSubstr;

class HostMemory : public DeviceMemory {
 public:
  explicit HostMemory(int64_t num_bytes) : bytes_(static_cast<size_t>(num_bytes)) {}
  void* data() const override { return const_cast<char*>(bytes_.data()); }

 private:
  std::vector<char> bytes_;
};

class HostMemoryDevice : public Device {
 public:
  std::string name() const override { return "host"; }
  absl::StatusOr<int64_t> FreeBytes() const override { return 0; }
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) override {
    return std::make_unique<HostMemory>(num_bytes);
  }
  absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() override {
    return absl::UnimplementedError("memory only");
  }
};

class CudaStreamTest : public testing::Test {
 protected:
  void Start(std::vector<fake_cuda::Algorithm> algorithms) {
    fake_cuda::Reset(std::move(algorithms));
    auto stream = CudaStream::Create(0, &algorithms_, std::make_unique<HostMemory>(0));
    CHECK(stream.ok());
    stream_ = *std::move(stream);
  }

  // y of 25 rows of 16 by a weight of [24, 16], small whole numbers: exact in any order.
  std::vector<float> Multiply(bool is_output_float32) {
    std::mt19937 random(7);
    std::vector<uint16_t> x(kRows * kInSize), weight(kOutSize * kInSize);
    for (uint16_t& value : x) value = BFloat16FromFloat(static_cast<float>(random() % 5));
    for (uint16_t& value : weight) value = BFloat16FromFloat(static_cast<float>(random() % 4));
    std::vector<float> y(kRows * kOutSize);
    std::vector<uint16_t> y16(y.size());
    void* const out = is_output_float32 ? static_cast<void*>(y.data()) : y16.data();
    const absl::Status status = stream_->Linear({.x = x.data(),
                                                 .weight = weight.data(),
                                                 .y = out,
                                                 .num_rows = kRows,
                                                 .in_size = kInSize,
                                                 .out_size = kOutSize,
                                                 .is_output_float32 = is_output_float32});
    EXPECT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < y.size() && !is_output_float32; ++i) y[i] = FloatFromBFloat16(y16[i]);
    expected_.assign(y.size(), 0.0f);
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kOutSize; ++i) {
        for (int k = 0; k < kInSize; ++k) {
          expected_[row * kOutSize + i] +=
              FloatFromBFloat16(x[row * kInSize + k]) * FloatFromBFloat16(weight[i * kInSize + k]);
        }
      }
    }
    return y;
  }

  absl::StatusOr<bool> Settle() {
    HostMemoryDevice device;
    std::mt19937 random(3);
    std::vector<uint16_t> weight(kOutSize * kInSize);
    for (uint16_t& value : weight) value = static_cast<uint16_t>(0x3c00 | (random() & 0x83ff));
    return SettleAlgorithm(device, *stream_, algorithms_,
                           {.weight = weight.data(),
                            .in_size = kInSize,
                            .out_size = kOutSize,
                            .is_output_float32 = true});
  }

  static std::vector<int32_t> PieceRows() {
    std::vector<int32_t> rows;
    for (const fake_cuda::Product& product : fake_cuda::Products())
      rows.push_back(product.num_rows);
    return rows;
  }

  static constexpr int32_t kRows = 25;
  static constexpr int32_t kInSize = 16;
  static constexpr int32_t kOutSize = 24;
  LinearAlgorithms algorithms_;
  std::unique_ptr<CudaStream> stream_;
  std::vector<float> expected_;
};

TEST_F(CudaStreamTest, LinearMultipliesRowsByRowsOfTheWeight) {
  Start({{}});
  EXPECT_EQ(Multiply(/*is_output_float32=*/true), expected_);
  EXPECT_EQ(Multiply(/*is_output_float32=*/false), expected_);
  EXPECT_THAT(PieceRows(), testing::ElementsAre(25, 25));
}

TEST_F(CudaStreamTest, LinearCutsRowsThatItsAlgorithmDoesNotTakeAtOnce) {
  Start({{.max_rows = 10}});
  EXPECT_EQ(Multiply(/*is_output_float32=*/true), expected_);
  EXPECT_THAT(PieceRows(), testing::ElementsAre(7, 7, 7, 4));
}

TEST_F(CudaStreamTest, LinearKeepsToTheBestAlgorithmThatTakesASingleRow) {
  Start({{.min_rows = 16}, {}, {.min_rows = 2}, {}});
  EXPECT_EQ(Multiply(/*is_output_float32=*/false), expected_);
  EXPECT_EQ(fake_cuda::Products().back().algorithm, 1u);
  const LinearShape shape = {.in_size = kInSize, .out_size = kOutSize};
  EXPECT_TRUE(algorithms_.Take(shape, 1));
  EXPECT_EQ(Multiply(/*is_output_float32=*/false), expected_);
  EXPECT_EQ(fake_cuda::Products().back().algorithm, 3u);
  EXPECT_FALSE(algorithms_.Take(shape, 2));
  EXPECT_EQ(Multiply(/*is_output_float32=*/false), expected_);
  EXPECT_EQ(fake_cuda::Products().back().algorithm, 3u);
}

TEST_F(CudaStreamTest, LinearAsksForASingleRowWhereNothingElseTakesOne) {
  Start({{.min_rows = 16}, {.max_rows = 1}});
  EXPECT_EQ(Multiply(/*is_output_float32=*/true), expected_);
  EXPECT_EQ(PieceRows(), std::vector<int32_t>(kRows, 1));
}

TEST_F(CudaStreamTest, TheBestAlgorithmThatRunsAndKeepsBitsIsSettledOn) {
  Start({{.fails = true}, {.splits_from = 64}, {.fails = true}, {}, {}});
  EXPECT_EQ(Settle(), absl::StatusOr<bool>(true));
  EXPECT_EQ(Multiply(/*is_output_float32=*/true), expected_);
  EXPECT_EQ(fake_cuda::Products().back().algorithm, 3u);
}

TEST_F(CudaStreamTest, WhereNoneKeepsBitsTheBestThatRunsIsTaken) {
  Start({{.fails = true}, {.splits_from = 64}, {.splits_from = 2}, {.fails = true}});
  EXPECT_EQ(Settle(), absl::StatusOr<bool>(false));
  EXPECT_EQ(Multiply(/*is_output_float32=*/true), expected_);
  EXPECT_EQ(fake_cuda::Products().back().algorithm, 1u);
}

TEST_F(CudaStreamTest, AProductThatNoAlgorithmRunsIsNamed) {
  Start({{.fails = true}, {.fails = true}});
  EXPECT_THAT(std::string(Settle().status().message()),
              HasSubstr("the matrix product of 24 by 16: cublasLtMatmul failed"));
}

TEST_F(CudaStreamTest, LinearWithoutAnAlgorithmOrWithOddSizesIsInternal) {
  Start({{.min_rows = 16}});
  EXPECT_THAT(std::string(stream_->Linear({.num_rows = 1, .in_size = 16, .out_size = 8}).message()),
              HasSubstr("no algorithm for a matrix product of 8 by 16"));
  EXPECT_EQ(stream_->Linear({.num_rows = 1, .in_size = 12, .out_size = 8}).code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(stream_->Linear({.num_rows = 1, .in_size = 16, .out_size = 9}).code(),
            absl::StatusCode::kInternal);
}

// More than both buffers hold, in pieces of many sizes whose memory is overwritten at once.
TEST_F(CudaStreamTest, UploadsArriveWhateverBecomesOfTheirSource) {
  Start({{}});
  constexpr int64_t kBytes = 50 << 20;
  std::vector<char> device(kBytes), expected(kBytes), back(kBytes);
  std::mt19937 random(11);
  std::vector<char> source;
  for (int64_t first = 0; first < kBytes;) {
    const int64_t piece = std::min<int64_t>(kBytes - first, 1 + random() % (40 << 18));
    source.assign(static_cast<size_t>(piece), static_cast<char>(random()));
    std::memcpy(expected.data() + first, source.data(), source.size());
    ASSERT_TRUE(stream_->Upload(device.data() + first, source.data(), piece).ok());
    first += piece;
  }
  ASSERT_TRUE(stream_->Download(back.data(), device.data(), kBytes).ok());
  EXPECT_TRUE(back == expected);
}

TEST_F(CudaStreamTest, WhileRecordingNothingIsCopiedOrWaitedFor) {
  Start({{}});
  char byte = 0;
  EXPECT_EQ(stream_->EndRecording().status().code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(stream_->BeginRecording().ok());
  EXPECT_EQ(stream_->Upload(&byte, &byte, 1).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(stream_->Download(&byte, &byte, 1).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(stream_->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(stream_->BeginRecording().code(), absl::StatusCode::kInternal);
  const auto graph = stream_->EndRecording();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_TRUE(stream_->Launch(**graph).ok());
  EXPECT_TRUE(stream_->Wait().ok());
}

TEST_F(CudaStreamTest, AKernelThatCannotBeStartedIsNamed) {
  Start({{}});
  const absl::Status status =
      stream_->kernels().SiluMultiply(DeviceType::kBFloat16, nullptr, 1, 8, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("SwiGLU failed: cudaErrorName, its text"));
}

TEST_F(CudaStreamTest, PinnedMemoryGoesWithTheStream) {
  Start({{}});
  EXPECT_GT(fake_cuda::PinnedBytes(), 0);
  stream_.reset();
  EXPECT_EQ(fake_cuda::PinnedBytes(), 0);
}

}  // namespace
}  // namespace chorus
