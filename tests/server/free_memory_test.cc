#include "server/free_memory.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace chorus {
namespace {

class FreeMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(::testing::TempDir()) /
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int64_t Read() const { return FreeMemoryBytes(root_.string()); }

  std::filesystem::path root_;
};

TEST_F(FreeMemoryTest, IsWhatTheKernelCallsAvailable) {
  Write("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    5000 kB\n");
  EXPECT_EQ(Read(), 5000 * 1024);
}

TEST_F(FreeMemoryTest, IsBoundedByTheControlGroup) {
  Write("proc/meminfo", "MemAvailable: 5000 kB\n");
  Write("sys/fs/cgroup/memory.max", "3000000\n");
  Write("sys/fs/cgroup/memory.current", "1000000\n");
  EXPECT_EQ(Read(), 2000000);
  Write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(Read(), 5000 * 1024);
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1500000\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "2000000\n");
  EXPECT_EQ(Read(), 0);
}

TEST_F(FreeMemoryTest, IsZeroWhereNothingCanBeRead) { EXPECT_EQ(Read(), 0); }

TEST(DefaultKvCacheBytesTest, SharesHalfAmongTheWorkers) {
  EXPECT_EQ(DefaultKvCacheBytes(int64_t{8} << 30, 2), int64_t{2} << 30);
  EXPECT_EQ(DefaultKvCacheBytes(0, 1), int64_t{64} << 20);
}

TEST(DefaultDeviceKvCacheBytesTest, SharesNineTenthsAmongTheWorkers) {
  EXPECT_EQ(DefaultDeviceKvCacheBytes(10'000, 3), 3'000);
  EXPECT_EQ(DefaultDeviceKvCacheBytes(-5'000, 1), 0);
}

}  // namespace
}  // namespace chorus
