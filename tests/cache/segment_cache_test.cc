#include "core/cache/segment_cache.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace chorus {
namespace {

constexpr int32_t kNoBound = 1 << 20;

SegmentKey Key(const std::vector<int32_t>& token_ids, const SegmentPin* prefix = nullptr,
               int32_t begin_position = 0) {
  return {prefix == nullptr ? nullptr : prefix->get(), token_ids, begin_position};
}

// Pins, fills.
SegmentPin Filled(SegmentCache& cache, const SegmentKey& key) {
  SegmentPin pin = *cache.Pin(key);
  pin->FillUpTo(pin->num_tokens());
  return pin;
}

TEST(SegmentCacheTest, FindsAFilledSegmentAfterItsLastUserHasGone) {
  SegmentCache cache(10, kNoBound);
  const std::vector<int32_t> tokens = {1, 2, 3};
  std::vector<int32_t> slots;
  {
    const SegmentPin pin = Filled(cache, Key(tokens));
    slots = pin->slots();
    EXPECT_EQ(cache.num_in_use(), 3);
  }
  EXPECT_EQ(cache.num_in_use(), 0);
  EXPECT_EQ(cache.num_idle_slots(), 3);
  const SegmentPin again = *cache.Pin(Key(tokens));
  EXPECT_TRUE(again->filled());
  EXPECT_EQ(again->slots(), slots);
  EXPECT_EQ(cache.num_idle_slots(), 0);
}

TEST(SegmentCacheTest, TwoUsersShareOneSegmentWhileItFills) {
  SegmentCache cache(10, kNoBound);
  const std::vector<int32_t> tokens = {1, 2, 3};
  SegmentPin a = *cache.Pin(Key(tokens));
  SegmentPin b = *cache.Pin(Key(tokens));
  EXPECT_EQ(a.get(), b.get());
  a->FillUpTo(2);
  a.Release();  // its user was cancelled: the other goes on from there
  EXPECT_EQ(b->num_filled(), 2);
  EXPECT_EQ(cache.num_in_use(), 3);
}

TEST(SegmentCacheTest, DropsWhatWasNeverFilled) {
  SegmentCache cache(10, kNoBound);
  const std::vector<int32_t> tokens = {1, 2, 3};
  cache.Pin(Key(tokens))->Release();
  EXPECT_EQ(cache.Find(Key(tokens)), nullptr);
  EXPECT_EQ(cache.num_available(), 10);
  EXPECT_EQ(cache.num_idle_slots(), 0);
}

TEST(SegmentCacheTest, TokensPositionAndPrefixAllCount) {
  SegmentCache cache(100, kNoBound);
  const std::vector<int32_t> a = {1, 2}, b = {1, 3}, tokens = {7, 8};
  const SegmentPin prefix_a = Filled(cache, Key(a));
  const SegmentPin prefix_b = Filled(cache, Key(b));
  const SegmentPin segment = Filled(cache, Key(tokens, &prefix_a, 2));
  EXPECT_EQ(cache.Find(Key(tokens, &prefix_a, 2)), segment.get());
  EXPECT_EQ(cache.Find(Key(tokens, &prefix_b, 2)), nullptr);
  EXPECT_EQ(cache.Find(Key(tokens, nullptr, 2)), nullptr);
  EXPECT_EQ(cache.Find(Key(tokens, &prefix_a, 3)), nullptr);
  EXPECT_EQ(cache.Find(Key(b, &prefix_a, 2)), nullptr);
}

TEST(SegmentCacheTest, EvictsTheLeastRecentlyUsedAndNeverWhatIsPinned) {
  SegmentCache cache(6, kNoBound);
  const std::vector<int32_t> a = {1, 1}, b = {2, 2}, c = {3, 3}, d = {4, 4};
  const SegmentPin pinned = Filled(cache, Key(a));
  Filled(cache, Key(b)).Release();
  Filled(cache, Key(c)).Release();
  cache.Pin(Key(b))->Release();  // c is now the oldest
  const SegmentPin next = Filled(cache, Key(d));
  EXPECT_EQ(cache.num_evictions(), 1);
  EXPECT_NE(cache.Find(Key(a)), nullptr);
  EXPECT_NE(cache.Find(Key(b)), nullptr);
  EXPECT_EQ(cache.Find(Key(c)), nullptr);
  EXPECT_EQ(cache.Allocate(3).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(cache.Find(Key(b)), nullptr) << "a refusal changes nothing";
  EXPECT_EQ(cache.Allocate(2)->size(), 2u);
  EXPECT_EQ(cache.Find(Key(b)), nullptr);
}

TEST(SegmentCacheTest, PrefixOutlivesItsFollowers) {
  SegmentCache cache(6, kNoBound);
  const std::vector<int32_t> prefix_tokens = {1, 2}, x = {3, 4}, y = {5, 6};
  for (const auto* tokens : {&x, &y}) {
    SegmentPin prefix = Filled(cache, Key(prefix_tokens));
    Filled(cache, Key(*tokens, &prefix, 2)).Release();
    prefix.Release();
  }
  ASSERT_EQ(cache.num_segments(), 3);
  EXPECT_TRUE(cache.Allocate(2).ok());  // x goes
  EXPECT_EQ(cache.num_segments(), 2);
  EXPECT_NE(cache.Find(Key(prefix_tokens)), nullptr);
  EXPECT_TRUE(cache.Allocate(2).ok());  // y
  EXPECT_NE(cache.Find(Key(prefix_tokens)), nullptr);
  EXPECT_TRUE(cache.Allocate(2).ok());
  EXPECT_EQ(cache.num_segments(), 0);
}

TEST(SegmentCacheTest, KeepsNoMoreIdleSlotsThanAllowed) {
  SegmentCache cache(100, 4);
  const std::vector<int32_t> a = {1, 1, 1}, b = {2, 2}, c = {3, 3, 3, 3, 3};
  Filled(cache, Key(a)).Release();
  EXPECT_EQ(cache.num_idle_slots(), 3);
  Filled(cache, Key(b)).Release();
  EXPECT_EQ(cache.num_idle_slots(), 2);
  Filled(cache, Key(c)).Release();
  EXPECT_EQ(cache.num_idle_slots(), 0);
  SegmentCache none(100, 0);
  Filled(none, Key(a)).Release();
  EXPECT_EQ(none.num_segments(), 0);
  EXPECT_EQ(none.num_available(), 100);
}

// Users come and go at random with a prefix and segments behind it: no slot has two owners, what is
// pinned stays as it is, and the counts are those of a plain list of users.
TEST(SegmentCacheTest, FuzzedWithManyUsers) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  struct User {
    std::vector<SegmentPin> pins;  // the prefix first
    std::vector<std::vector<int32_t>> slots;
    std::vector<int32_t> own;
  };
  for (int round = 0; round < 30; ++round) {
    const auto num_slots = static_cast<int32_t>(20 + random() % 100);
    SegmentCache cache(num_slots, random() % 2 ? kNoBound : static_cast<int32_t>(random() % 30));
    std::vector<User> users;
    for (int step = 0; step < 300; ++step) {
      if (random() % 2 == 0) {
        User user;
        bool fits = true;
        const size_t num_segments = 1 + random() % 4;
        for (size_t i = 0; fits && i < num_segments; ++i) {
          const std::vector<int32_t> tokens(1 + random() % 8, static_cast<int32_t>(random() % 3));
          auto pin = cache.Pin(i == 0 ? Key(tokens) : Key(tokens, &user.pins[0], 1));
          fits = pin.ok();
          if (!fits) continue;
          (*pin)->FillUpTo((*pin)->num_tokens());
          user.slots.push_back((*pin)->slots());
          user.pins.push_back(*std::move(pin));
        }
        if (auto own = cache.Allocate(static_cast<int32_t>(random() % 5)); own.ok()) {
          user.own = *std::move(own);
        }
        users.push_back(std::move(user));
      } else if (!users.empty()) {
        const size_t i = random() % users.size();
        cache.Free(users[i].own);
        while (!users[i].pins.empty()) users[i].pins.pop_back();
        users.erase(users.begin() + static_cast<int64_t>(i));
      }
      std::set<const CachedSegment*> pinned;
      std::set<int32_t> slots;
      int32_t num_used = 0;
      for (const User& user : users) {
        for (size_t i = 0; i < user.pins.size(); ++i) {
          ASSERT_EQ(user.pins[i]->slots(), user.slots[i]);
          ASSERT_EQ(cache.Find(user.pins[i]->key()), user.pins[i].get());
          if (!pinned.insert(user.pins[i].get()).second) continue;
          num_used += user.pins[i]->num_tokens();
          slots.insert(user.slots[i].begin(), user.slots[i].end());
        }
        num_used += static_cast<int32_t>(user.own.size());
        slots.insert(user.own.begin(), user.own.end());
      }
      ASSERT_EQ(static_cast<int32_t>(slots.size()), num_used);
      ASSERT_EQ(cache.num_in_use(), num_used);
    }
    for (User& user : users) {
      while (!user.pins.empty()) user.pins.pop_back();
    }
  }
}

}  // namespace
}  // namespace chorus
