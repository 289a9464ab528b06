#include "core/engine/request_queue.h"

#include <limits>
#include <string>
#include <thread>

#include "gtest/gtest.h"

#include "core/engine/request_ledger.h"

namespace chorus {
namespace {

std::unique_ptr<PendingRequest> Pending(std::string id, int32_t priority, int64_t num_slots) {
  auto pending = std::make_unique<PendingRequest>();
  pending->request.id = std::move(id);
  pending->request.priority = priority;
  pending->plan.num_slots = num_slots;
  pending->cancelled = std::make_shared<std::atomic<bool>>(false);
  return pending;
}

TEST(RequestQueueTest, PopsByPriorityThenArrival) {
  RequestQueue queue;
  queue.Push(Pending("a", 0, 1));
  queue.Push(Pending("b", 2, 1));
  queue.Push(Pending("c", 2, 1));
  queue.Push(Pending("d", std::numeric_limits<int32_t>::min(), 1));
  for (const char* id : {"b", "c", "a", "d"}) EXPECT_EQ(queue.PopIfFits(1)->request.id, id);
  EXPECT_EQ(queue.PopIfFits(1), nullptr);
}

TEST(RequestQueueTest, NothingOvertakesAHeadThatDoesNotFit) {
  RequestQueue queue;
  queue.Push(Pending("large", 0, 10));
  queue.Push(Pending("small", 0, 1));
  EXPECT_EQ(queue.PopIfFits(9), nullptr);
  EXPECT_EQ(queue.PopIfFits(10)->request.id, "large");
  EXPECT_EQ(queue.PopIfFits(1)->request.id, "small");
}

TEST(RequestQueueTest, TakesOutWhatIsCancelledOrLate) {
  RequestQueue queue;
  const absl::Time now = absl::FromUnixSeconds(100);
  auto cancelled = Pending("cancelled", 0, 1);
  *cancelled->cancelled = true;
  queue.Push(std::move(cancelled));
  auto late = Pending("late", 0, 1);
  late->request.deadline = now;
  queue.Push(std::move(late));
  queue.Push(Pending("good", 0, 1));
  const auto ended = queue.TakeEnded(now);
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0]->request.id, "cancelled");
  EXPECT_EQ(ended[1]->request.id, "late");
  EXPECT_EQ(queue.TakeAll().size(), 1u);
}

TEST(RequestQueueTest, PushAndWakeEndAWait) {
  RequestQueue queue;
  queue.Push(Pending("a", 0, 1));
  queue.WaitForChange(absl::InfiniteDuration());  // remembered
  std::thread waker([&] { queue.Wake(); });
  queue.WaitForChange(absl::InfiniteDuration());
  waker.join();
  queue.WaitForChange(absl::ZeroDuration());  // nothing new: the timeout ends it
}

TEST(RequestLedgerTest, BoundsWaitingRequestsAndClosesForDraining) {
  RequestLedger ledger(2);
  EXPECT_EQ(ledger.TryAccept(), std::nullopt);
  EXPECT_EQ(ledger.TryAccept(), std::nullopt);
  EXPECT_EQ(ledger.TryAccept(), RejectReason::kQueueFull);
  ledger.StartOne();
  EXPECT_EQ(ledger.num_running(), 1);
  EXPECT_EQ(ledger.TryAccept(), std::nullopt);
  ledger.StartDraining();
  EXPECT_EQ(ledger.TryAccept(), RejectReason::kDraining);
  EXPECT_FALSE(ledger.AwaitEmpty(absl::ZeroDuration()));
  ledger.EndOneWaiting();
  ledger.EndOneWaiting();
  ledger.EndOneRunning();
  EXPECT_TRUE(ledger.AwaitEmpty(absl::ZeroDuration()));
}

}  // namespace
}  // namespace chorus
