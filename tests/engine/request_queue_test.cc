#include "core/engine/request_queue.h"

#include <set>
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
  RequestQueue queue(absl::Seconds(1));
  queue.Push(Pending("a", 0, 1));
  queue.Push(Pending("b", 2, 1));
  queue.Push(Pending("c", 2, 1));
  queue.Push(Pending("d", -100, 1));
  for (const char* id : {"b", "c", "a", "d"}) EXPECT_EQ(queue.Pop()->request.id, id);
  EXPECT_EQ(queue.Pop(), nullptr);
}

TEST(RequestQueueTest, WhatHasWaitedLongEnoughGoesBeforeAHigherPriority) {
  RequestQueue queue(absl::Seconds(1));
  const auto at = [](int64_t second, std::string id, int32_t priority) {
    auto pending = Pending(std::move(id), priority, 1);
    pending->submitted = absl::FromUnixSeconds(second);
    return pending;
  };
  queue.Push(at(100, "old", 0));
  queue.Push(at(104, "urgent", 5));
  queue.Push(at(106, "urgent, too late to pass", 5));
  for (const char* id : {"urgent", "old", "urgent, too late to pass"}) {
    EXPECT_EQ(queue.Pop()->request.id, id);
  }
}

TEST(RequestQueueTest, WhatIsReturnedKeepsItsPlace) {
  RequestQueue queue(absl::Seconds(1));
  EXPECT_EQ(queue.HeadUrgency(), std::nullopt);
  queue.Push(Pending("first", 0, 1));
  queue.Push(Pending("second", 0, 1));
  auto first = queue.Pop();
  const Urgency urgency = first->urgency;
  EXPECT_LT(urgency, *queue.HeadUrgency());
  queue.Return(std::move(first));
  EXPECT_EQ(*queue.HeadUrgency() <=> urgency, std::strong_ordering::equal);
  EXPECT_EQ(queue.Pop()->request.id, "first");
}

TEST(RequestQueueTest, TakesOutWhatIsCancelledOrLate) {
  RequestQueue queue(absl::Seconds(1));
  const absl::Time now = absl::FromUnixSeconds(100);
  auto cancelled = Pending("cancelled", 0, 1);
  *cancelled->cancelled = true;
  cancelled->submitted = now;
  queue.Push(std::move(cancelled));
  auto late = Pending("late", 0, 1);
  late->request.deadline = now;
  late->submitted = now;
  queue.Push(std::move(late));
  auto good = Pending("good", 0, 1);
  good->submitted = now - absl::Seconds(5);
  queue.Push(std::move(good));
  auto old = Pending("old", 0, 1);
  old->submitted = now - absl::Seconds(6);
  queue.Push(std::move(old));
  std::set<std::string> ended;
  for (const auto& pending : queue.TakeEnded(now, /*oldest=*/now - absl::Seconds(5))) {
    ended.insert(pending->request.id);
  }
  EXPECT_EQ(ended, (std::set<std::string>{"cancelled", "late", "old"}));
  EXPECT_EQ(queue.TakeAll().size(), 1u);
}

TEST(RequestQueueTest, PushAndWakeEndAWait) {
  RequestQueue queue(absl::Seconds(1));
  queue.Push(Pending("a", 0, 1));
  queue.WaitForChange(absl::InfiniteDuration());  // remembered
  std::thread waker([&] { queue.Wake(); });
  queue.WaitForChange(absl::InfiniteDuration());
  waker.join();
  queue.WaitForChange(absl::ZeroDuration());  // nothing new: the timeout ends it
}

TEST(RequestLedgerTest, BoundsWaitingRequestsAndClosesForDraining) {
  RequestLedger ledger({.max_waiting = 2, .max_waiting_tokens = 1000});
  EXPECT_EQ(ledger.TryAccept({1}), std::nullopt);
  EXPECT_EQ(ledger.TryAccept({1}), std::nullopt);
  EXPECT_EQ(ledger.TryAccept({1}), RejectReason::kQueueFull);
  ledger.StartOne({1});
  EXPECT_EQ(ledger.num_running(), 1);
  EXPECT_EQ(ledger.TryAccept({1}), std::nullopt);
  ledger.StartDraining();
  EXPECT_EQ(ledger.TryAccept({1}), RejectReason::kDraining);
  EXPECT_FALSE(ledger.AwaitEmpty(absl::ZeroDuration()));
  ledger.EndOneWaiting({1});
  ledger.EndOneWaiting({1});
  ledger.EndOneRunning({1});
  EXPECT_TRUE(ledger.AwaitEmpty(absl::ZeroDuration()));
}

TEST(RequestLedgerTest, BoundsWaitingTokensButTakesOneOfAnySize) {
  RequestLedger ledger({.max_waiting = 10, .max_waiting_tokens = 100});
  EXPECT_EQ(ledger.TryAccept({500}), std::nullopt);
  EXPECT_EQ(ledger.TryAccept({1}), RejectReason::kQueueFull);
  ledger.StartOne({500});
  EXPECT_EQ(ledger.TryAccept({60}), std::nullopt);
  EXPECT_EQ(ledger.TryAccept({41}), RejectReason::kQueueFull);
  EXPECT_EQ(ledger.TryAccept({40}), std::nullopt);
  ledger.EndOneWaiting({40});
  EXPECT_EQ(ledger.TryAccept({40}), std::nullopt);
}

TEST(RequestLedgerTest, BackgroundRequestsHavePlacesOfTheirOwn) {
  RequestLedger ledger({.max_waiting = 1, .max_waiting_tokens = 100, .max_background = 2});
  const RequestLoad background = {.num_tokens = 1000, .is_background = true};
  EXPECT_EQ(ledger.TryAccept(background), std::nullopt);
  EXPECT_EQ(ledger.TryAccept({100}), std::nullopt);
  EXPECT_EQ(ledger.TryAccept(background), std::nullopt);
  EXPECT_EQ(ledger.TryAccept(background), RejectReason::kQueueFull);
  EXPECT_EQ(ledger.num_waiting(), 3);
  EXPECT_TRUE(ledger.is_full());
  ledger.StartOne(background);
  EXPECT_EQ(ledger.num_running(), 1);
  EXPECT_EQ(ledger.TryAccept(background), RejectReason::kQueueFull);
  ledger.EndOneRunning(background);
  EXPECT_EQ(ledger.num_running(), 0);
  EXPECT_EQ(ledger.TryAccept(background), std::nullopt);
  ledger.EndOneWaiting(background);
  ledger.EndOneWaiting(background);
  EXPECT_FALSE(ledger.AwaitEmpty(absl::ZeroDuration()));
  EXPECT_TRUE(ledger.is_full());
  ledger.EndOneWaiting({100});
  EXPECT_FALSE(ledger.is_full());
  EXPECT_TRUE(ledger.AwaitEmpty(absl::ZeroDuration()));
}

TEST(RequestQueueTest, BackgroundComesLastWhateverItsPriorityAndAge) {
  RequestQueue queue(absl::Seconds(1));
  auto background = Pending("background", 100, 1);
  background->request.explain.emplace();
  queue.Push(std::move(background));
  queue.Push(Pending("a", -100, 1'000'000));
  EXPECT_EQ(queue.Pop()->request.id, "a");
  EXPECT_EQ(queue.Pop()->request.id, "background");
}

}  // namespace
}  // namespace chorus
