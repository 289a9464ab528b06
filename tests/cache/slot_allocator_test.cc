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
  allocator.Unref({0, 1, 2, 3, 4});
  allocator.Unref({7, 8});
  EXPECT_THAT(*allocator.Allocate(2), ElementsAre(7, 8));
  EXPECT_THAT(*allocator.Allocate(5), ElementsAre(0, 1, 2, 3, 4));
}

TEST(SlotAllocatorTest, ScattersWhenNoRunIsLongEnough) {
  SlotAllocator allocator(6);
  ASSERT_TRUE(allocator.Allocate(6).ok());
  allocator.Unref({0, 1});
  allocator.Unref({4});
  EXPECT_THAT(*allocator.Allocate(3), ElementsAre(0, 1, 4));
  EXPECT_EQ(allocator.num_free(), 0);
}

TEST(SlotAllocatorTest, MergesFreedNeighboursIntoOneRun) {
  SlotAllocator allocator(5);
  ASSERT_TRUE(allocator.Allocate(5).ok());
  allocator.Unref({3});
  allocator.Unref({1});
  allocator.Unref({2});
  EXPECT_THAT(*allocator.Allocate(3), ElementsAre(1, 2, 3));
}

TEST(SlotAllocatorTest, RefusesMoreThanIsFreeAndTakesNothing) {
  SlotAllocator allocator(4);
  ASSERT_TRUE(allocator.Allocate(3).ok());
  EXPECT_EQ(allocator.Allocate(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(allocator.num_free(), 1);
  EXPECT_TRUE(allocator.Allocate(0)->empty());
}

TEST(SlotAllocatorTest, SlotIsFreeOnlyAfterItsLastReference) {
  SlotAllocator allocator(2);
  const std::vector<int32_t> slots = *allocator.Allocate(2);
  allocator.Ref({slots[0]});
  allocator.Unref(slots);
  EXPECT_EQ(allocator.num_free(), 1);
  EXPECT_EQ(allocator.ref_count(slots[0]), 1);
  allocator.Unref({slots[0]});
  EXPECT_EQ(allocator.num_free(), 2);
}

TEST(SlotAllocatorDeathTest, MisuseEndsTheProcess) {
  SlotAllocator allocator(2);
  EXPECT_DEATH(allocator.Unref({0}), "ref_count");
  EXPECT_DEATH(allocator.Ref({1}), "ref_count");
  EXPECT_DEATH(allocator.Unref({2}), "slot");
}

// Against a model of plain reference counts: nothing is handed out twice, nothing is lost, and a
// contiguous run is given whenever there is one.
TEST(SlotAllocatorTest, FuzzedAgainstPlainReferenceCounts) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    const int32_t num_slots = static_cast<int32_t>(random() % 64);
    SlotAllocator allocator(num_slots);
    std::vector<int32_t> counts(num_slots, 0);
    const auto longest_free_run = [&] {
      int32_t longest = 0, run = 0;
      for (int32_t count : counts) longest = std::max(longest, run = count == 0 ? run + 1 : 0);
      return longest;
    };
    for (int step = 0; step < 400; ++step) {
      const int32_t num_free = static_cast<int32_t>(std::count(counts.begin(), counts.end(), 0));
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
        for (int32_t slot : *slots) ASSERT_EQ(counts[slot]++, 0);
      } else if (num_slots > 0) {
        const int32_t slot = static_cast<int32_t>(random() % num_slots);
        if (counts[slot] == 0) continue;
        const bool add = random() % 3 == 0;
        add ? allocator.Ref({slot}) : allocator.Unref({slot});
        counts[slot] += add ? 1 : -1;
        ASSERT_EQ(allocator.ref_count(slot), counts[slot]);
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
