#include "core/model/linear_check.h"

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace chorus {
namespace {

class HostMemory : public DeviceMemory {
 public:
  explicit HostMemory(int64_t num_bytes) : bytes_(static_cast<size_t>(num_bytes)) {}
  void* data() const override { return const_cast<char*>(bytes_.data()); }

 private:
  std::vector<char> bytes_;
};

// A device with matrix products only, in whose hands a row's sum is one chain, or is split in
// halves from so many rows on, as a library that picks its kernel by the number of rows would, or
// from so many rows of the batch on, as one that gives the rest of a tile to another kernel would.
class ProductsOnly : public Device, public DeviceStream {
 public:
  ProductsOnly(int32_t split_from_rows, int32_t split_from_row)
      : split_from_rows_(split_from_rows), split_from_row_(split_from_row) {}

  std::string name() const override { return "host"; }
  absl::StatusOr<int64_t> FreeBytes() const override { return 0; }
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t num_bytes) override {
    return std::make_unique<HostMemory>(num_bytes);
  }
  absl::StatusOr<std::unique_ptr<DeviceStream>> CreateStream() override { return Unused(); }

  DeviceKernels& kernels() override { std::abort(); }
  absl::Status Linear(const DeviceLinearArgs& args) override {
    const auto* x = static_cast<const uint16_t*>(args.x);
    const auto* weight = static_cast<const uint16_t*>(args.weight);
    auto* y = static_cast<float*>(args.y);
    for (int64_t row = 0; row < args.num_rows; ++row) {
      const bool is_split = args.num_rows >= split_from_rows_ || row >= split_from_row_;
      const int32_t middle = is_split ? args.in_size / 2 : args.in_size;
      for (int64_t i = 0; i < args.out_size; ++i) {
        float sums[2] = {0.0f, 0.0f};
        for (int64_t k = 0; k < args.in_size; ++k) {
          sums[k < middle ? 0 : 1] +=
              Float(x[row * args.in_size + k]) * Float(weight[i * args.in_size + k]);
        }
        y[row * args.out_size + i] = sums[0] + sums[1];
      }
    }
    return absl::OkStatus();
  }
  absl::Status Upload(void* to, const void* from, int64_t num_bytes) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
    return absl::OkStatus();
  }
  absl::Status Download(void* to, const void* from, int64_t num_bytes) override {
    return Upload(to, from, num_bytes);
  }
  absl::Status Wait() override { return absl::OkStatus(); }
  absl::Status BeginRecording() override { return Unused(); }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> EndRecording() override { return Unused(); }
  absl::Status Launch(DeviceGraph&) override { return Unused(); }

 private:
  static float Float(uint16_t bfloat16) { return std::bit_cast<float>(uint32_t{bfloat16} << 16); }
  static absl::Status Unused() { return absl::UnimplementedError("products only"); }

  const int32_t split_from_rows_;
  const int32_t split_from_row_;
};

bool HasInvariantBits(int32_t split_from_rows, int32_t split_from_row = 1 << 20) {
  std::mt19937 random(1);
  std::vector<uint16_t> weight(8 * 64);
  for (uint16_t& value : weight) value = static_cast<uint16_t>(0x3c00 | (random() & 0x83ff));
  ProductsOnly device(split_from_rows, split_from_row);
  const auto result = HasRowInvariantBits(
      device, device,
      {.weight = weight.data(), .in_size = 64, .out_size = 8, .is_output_float32 = true});
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or(false);
}

TEST(LinearCheckTest, OneChainForAnyNumberOfRowsHasInvariantBits) {
  EXPECT_TRUE(HasInvariantBits(/*split_from_rows=*/1));
  EXPECT_TRUE(HasInvariantBits(/*split_from_rows=*/2049));
}

TEST(LinearCheckTest, AnotherKernelForMoreRowsIsFound) {
  for (const int32_t split_from_rows : {2, 10, 60, 90, 200, 1000}) {
    EXPECT_FALSE(HasInvariantBits(split_from_rows)) << split_from_rows;
  }
}

TEST(LinearCheckTest, ARowThatIsOtherAtAnotherPlaceIsFound) {
  for (const int32_t split_from_row : {1, 16, 2000}) {
    EXPECT_FALSE(HasInvariantBits(1 << 20, split_from_row)) << split_from_row;
  }
}

}  // namespace
}  // namespace chorus
