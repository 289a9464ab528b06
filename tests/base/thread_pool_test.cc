#include "core/base/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace chorus {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, CountsTheCallingThread) {
  EXPECT_EQ(ThreadPool(GetParam()).num_threads(), GetParam());
}

TEST_P(ThreadPoolTest, RunsEveryTaskExactlyOnce) {
  ThreadPool pool(GetParam());
  for (int64_t num_tasks : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<std::atomic<int>> runs(num_tasks);
    pool.ParallelFor(num_tasks, [&](int64_t i) { runs[i].fetch_add(1); });
    for (int64_t i = 0; i < num_tasks; ++i)
      ASSERT_EQ(runs[i].load(), 1) << i << " of " << num_tasks;
  }
}

TEST_P(ThreadPoolTest, WritesOfTasksAreSeenAfterTheRegion) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> squares(500, -1);  // plain memory: the region itself must order the writes
  for (int round = 0; round < 200; ++round) {
    pool.ParallelFor(500, [&](int64_t i) { squares[i] = i * i + round; });
    for (int64_t i = 0; i < 500; ++i) ASSERT_EQ(squares[i], i * i + round);
  }
}

TEST_P(ThreadPoolTest, ManyShortRegionsFollowEachOther) {
  ThreadPool pool(GetParam());
  int64_t total = 0;
  for (int64_t round = 0; round < 3000; ++round) {
    std::atomic<int64_t> sum{0};
    const int64_t num_tasks = round % 5;
    pool.ParallelFor(num_tasks, [&](int64_t i) { sum.fetch_add(i + 1); });
    ASSERT_EQ(sum.load(), num_tasks * (num_tasks + 1) / 2);
    total += sum.load();
  }
  EXPECT_EQ(total, 600 * (0 + 1 + 3 + 6 + 10));
}

TEST_P(ThreadPoolTest, WakesAfterItsThreadsHaveGoneToSleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 5; ++round) {
    absl::SleepFor(absl::Milliseconds(20));  // far longer than the team spins
    std::atomic<int> count{0};
    pool.ParallelFor(16, [&](int64_t) { count.fetch_add(1); });
    ASSERT_EQ(count.load(), 16);
  }
}

TEST_P(ThreadPoolTest, TheCallerReturnsOnlyWhenUnevenTasksAreDone) {
  ThreadPool pool(GetParam());
  std::atomic<int> num_done{0};
  pool.ParallelFor(GetParam(), [&](int64_t i) {
    if (i == 0) absl::SleepFor(absl::Milliseconds(30));
    num_done.fetch_add(1);
  });
  EXPECT_EQ(num_done.load(), GetParam());
}

TEST_P(ThreadPoolTest, MayBeMadeAndEndedWithoutWork) {
  for (int i = 0; i < 20; ++i) ThreadPool pool(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

// Two tasks that wait for each other end only if two threads run them at the same time.
TEST(ThreadPoolTeamTest, TasksRunAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> num_started{0};
  std::thread::id threads[2];
  pool.ParallelFor(2, [&](int64_t i) {
    threads[i] = std::this_thread::get_id();
    num_started.fetch_add(1);
    while (num_started.load() < 2) std::this_thread::yield();
  });
  EXPECT_NE(threads[0], threads[1]);
}

TEST(ThreadPoolTeamTest, SeveralPoolsWorkSideBySide) {
  std::vector<std::thread> owners;
  std::atomic<int64_t> total{0};
  for (int i = 0; i < 3; ++i) {
    owners.emplace_back([&total] {
      ThreadPool pool(2);
      for (int round = 0; round < 100; ++round) {
        pool.ParallelFor(10, [&](int64_t) { total.fetch_add(1); });
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(total.load(), 3 * 100 * 10);
}

TEST(ThreadPoolDeathTest, NoThreadsAreOurOwnBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(ThreadPool pool(0), "num_threads >= 1");
}

}  // namespace
}  // namespace chorus
