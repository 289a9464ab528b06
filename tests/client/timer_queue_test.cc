#include "client/timer_queue.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::ElementsAre;

TEST(TimerQueueTest, WorkRunsInTheOrderOfItsTimesThenOfItsAdding) {
  TimerQueue queue;
  const absl::Time now = SteadyNow();
  std::vector<int> ran;
  queue.Add(now + absl::Milliseconds(2), [&] { ran.push_back(3); });
  queue.Add(now, [&] { ran.push_back(1); });
  queue.Add(now, [&] { ran.push_back(2); });
  for (int i = 0; i < 3; ++i) queue.RunNext();
  EXPECT_THAT(ran, ElementsAre(1, 2, 3));
  EXPECT_GE(SteadyNow(), now + absl::Milliseconds(2));
}

TEST(TimerQueueTest, WorkMayAddWork) {
  TimerQueue queue;
  int ran = 0;
  queue.Add(SteadyNow(), [&] { queue.Add(SteadyNow(), [&] { ++ran; }); });
  queue.RunNext();
  queue.RunNext();
  EXPECT_EQ(ran, 1);
}

TEST(TimerQueueTest, EarlierWorkOfAnotherThreadEndsTheWait) {
  TimerQueue queue;
  bool has_run = false;
  queue.Add(absl::InfiniteFuture(), [] { FAIL() << "ran before its time"; });
  std::thread adder([&] { queue.Add(SteadyNow(), [&] { has_run = true; }); });
  queue.RunNext();
  adder.join();
  EXPECT_TRUE(has_run);
}

}  // namespace
}  // namespace chorus
