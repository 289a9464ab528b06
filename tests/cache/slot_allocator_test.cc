#include "core/cache/slot_allocator.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/cache/content_hash.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

TEST(SlotAllocatorTest, HandsOutOneContiguousRunFromAnEmptySpace) {
  SlotAllocator allocator(8);
  EXPECT_THAT(*allocator.Allocate(3), ElementsAre(0, 1, 2));
  EXPECT_THAT(*allocator.Allocate(2), ElementsAre(3, 4));
  EXPECT_EQ(allocator.num_used(), 5);
  EXPECT_EQ(allocator.num_free(), 3);
}

TEST(SlotAllocatorTest, PrefersTheShortestRunThatIsLongEnough) {
  SlotAllocator allocator(10);
  const std::vector<int32_t> all = *allocator.Allocate(10);
  allocator.Free({0, 1, 2, 3, 4});
  allocator.Free({7, 8});
  EXPECT_THAT(*allocator.Allocate(2), ElementsAre(7, 8));
  EXPECT_THAT(*allocator.Allocate(5), ElementsAre(0, 1, 2, 3, 4));
}

TEST(SlotAllocatorTest, ScattersWhenNoRunIsLongEnough) {
  SlotAllocator allocator(6);
  ASSERT_TRUE(allocator.Allocate(6).ok());
  allocator.Free({0, 1});
  allocator.Free({4});
  EXPECT_THAT(*allocator.Allocate(3), ElementsAre(0, 1, 4));
  EXPECT_EQ(allocator.num_free(), 0);
}

TEST(SlotAllocatorTest, MergesFreedNeighboursIntoOneRun) {
  SlotAllocator allocator(5);
  ASSERT_TRUE(allocator.Allocate(5).ok());
  allocator.Free({3});
  allocator.Free({1});
  allocator.Free({2});
  EXPECT_THAT(*allocator.Allocate(3), ElementsAre(1, 2, 3));
}

TEST(SlotAllocatorTest, RefusesMoreThanIsFreeAndTakesNothing) {
  SlotAllocator allocator(4);
  ASSERT_TRUE(allocator.Allocate(3).ok());
  EXPECT_EQ(allocator.Allocate(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(allocator.num_free(), 1);
  EXPECT_TRUE(allocator.Allocate(0)->empty());
}

// Whatever is free can be handed out, however scattered: nothing is lost to fragmentation. Requests
// of six segments of 40 tokens come and go at random until no more fit.
TEST(SlotAllocatorTest, LosesNothingToFragmentation) {
  std::mt19937 random(7);
  SlotAllocator allocator(4000);
  std::vector<std::vector<int32_t>> segments;
  for (int round = 0; round < 2000; ++round) {
    const auto length = static_cast<int32_t>(30 + random() % 21);  // about 40
    if (auto slots = allocator.Allocate(length); slots.ok()) {
      segments.push_back(*std::move(slots));
    } else {
      EXPECT_LT(allocator.num_free(), length);  // refused only because it is full
      const size_t victim = random() % segments.size();
      allocator.Free(segments[victim]);
      segments.erase(segments.begin() + static_cast<int64_t>(victim));
    }
  }
  EXPECT_EQ(static_cast<int32_t>(allocator.Allocate(allocator.num_free())->size()) +
                [&] {
                  int32_t num = 0;
                  for (const auto& slots : segments) num += static_cast<int32_t>(slots.size());
                  return num;
                }(),
            4000);
}

TEST(SlotAllocatorDeathTest, MisuseEndsTheProcess) {
  SlotAllocator allocator(2);
  EXPECT_DEATH(allocator.Free({0}), "is_taken_");
  EXPECT_DEATH(allocator.Free({2}), "num_slots");
  EXPECT_DEATH(allocator.Free({-1}), "begin");
}

// Against a plain list of what is taken: nothing is handed out twice, nothing is lost, and a
// contiguous run is given whenever there is one.
TEST(SlotAllocatorTest, FuzzedAgainstAPlainList) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    const int32_t num_slots = static_cast<int32_t>(random() % 64);
    SlotAllocator allocator(num_slots);
    std::vector<bool> taken(num_slots, false);
    const auto longest_free_run = [&] {
      int32_t longest = 0, run = 0;
      for (bool is_taken : taken) longest = std::max(longest, run = is_taken ? 0 : run + 1);
      return longest;
    };
    for (int step = 0; step < 400; ++step) {
      const auto num_free = static_cast<int32_t>(std::count(taken.begin(), taken.end(), false));
      ASSERT_EQ(allocator.num_free(), num_free);
      if (random() % 2 == 0) {
        const int32_t wanted = static_cast<int32_t>(random() % 12);
        const auto slots = allocator.Allocate(wanted);
        ASSERT_EQ(slots.ok(), wanted <= num_free);
        if (!slots.ok()) continue;
        ASSERT_EQ(static_cast<int32_t>(slots->size()), wanted);
        if (wanted > 0 && wanted <= longest_free_run()) {
          for (int32_t i = 1; i < wanted; ++i) ASSERT_EQ((*slots)[i], (*slots)[i - 1] + 1);
        }
        for (int32_t slot : *slots) {
          ASSERT_FALSE(taken[slot]);
          taken[slot] = true;
        }
      } else {
        std::vector<int32_t> freed;
        for (int32_t slot = 0; slot < num_slots; ++slot) {
          if (taken[slot] && random() % 4 == 0) freed.push_back(slot);
        }
        std::shuffle(freed.begin(), freed.end(), random);
        allocator.Free(freed);
        for (int32_t slot : freed) taken[slot] = false;
      }
      for (int32_t slot = 0; slot < num_slots; ++slot) {
        ASSERT_EQ(allocator.is_free(slot), !taken[slot]);
      }
    }
  }
}

TEST(ContentHashTest, IsFixedAndDependsOnEveryTokenAndTheirOrder) {
  EXPECT_EQ(ContentHash({}), 0xcbf29ce484222325ull);  // FNV-1a's offset basis
  EXPECT_EQ(ContentHash({1, 2}), ContentHash({1, 2}));
  EXPECT_NE(ContentHash({1, 2}), ContentHash({2, 1}));
  EXPECT_NE(ContentHash({1, 2}), ContentHash({1, 2, 0}));
}

}  // namespace
}  // namespace chorus
