// Every rule against its definition, spelled out here once more; compositions against their laws.
#include <random>
#include <string>

#include "gtest/gtest.h"

#include "core/segment/causal_mask.h"
#include "core/segment/chunked_mask.h"
#include "core/segment/composed_mask.h"
#include "core/segment/custom_mask.h"
#include "core/segment/layout_mask.h"
#include "core/segment/mask_rows.h"
#include "core/segment/offset_mask.h"
#include "core/segment/packed_mask.h"
#include "core/segment/padding_mask.h"
#include "core/segment/shared_prefix_mask.h"
#include "core/segment/sliding_window_mask.h"
#include "tests/segment/mask_support.h"

namespace chorus {
namespace {

constexpr int32_t kBatch = 2, kQueries = 17, kKeys = 23;

// Whether a mask says what `definition` says, pair by pair and row by row.
template <typename Definition>
void ExpectIs(const Mask& mask, const Definition& definition) {
  const Matrix expected = Tabulate(kBatch, kQueries, kKeys, definition);
  EXPECT_EQ(Tabulate(mask, kBatch, kQueries, kKeys), expected);
  const std::vector<MaskRows> batch = CompileBatch(mask, {kBatch, kQueries, kKeys});
  EXPECT_EQ(Tabulate(kBatch, kQueries, kKeys,
                     [&](int32_t b, int32_t q, int32_t k) { return batch[b].Allows(q, k); }),
            expected);
}

TEST(MaskRuleTest, CausalSeesItselfAndWhatIsBefore) {
  ExpectIs(CausalMask(), [](int32_t, int32_t q, int32_t k) { return k <= q; });
}

TEST(MaskRuleTest, SlidingWindowSeesAsManyKeysAsItSays) {
  for (int32_t window : {1, 3, 5, 16, 17, 100, INT32_MAX}) {
    ExpectIs(SlidingWindowMask(window),
             [&](int32_t, int32_t q, int32_t k) { return k <= q && q - k < window; });
  }
}

TEST(MaskRuleTest, ChunksSeeThemselvesBothWays) {
  for (int32_t chunk : {1, 3, 8, 17, 100, INT32_MAX}) {
    ExpectIs(ChunkedMask(chunk),
             [&](int32_t, int32_t q, int32_t k) { return q / chunk == k / chunk; });
  }
}

TEST(MaskRuleTest, PaddingHidesKeysOfItsBatchEntryAndAllPastItsLength) {
  const std::vector<uint8_t> valid = {0, 0, 1, 1, 1,  //
                                      1, 1, 0, 1, 0};
  ExpectIs(PaddingMask::Create(2, 5, valid).value(),
           [&](int32_t b, int32_t, int32_t k) { return k < 5 && valid[b * 5 + k] != 0; });
}

TEST(MaskRuleTest, PackedSequencesSeeThemselvesWhereverTheirTokensStand) {
  const std::vector<int32_t> ids = {7, 7, -1, -1, 7, 3,  //
                                    0, 1, 1,  1,  2, 2};
  ExpectIs(PackedMask::FromSequenceIds(2, 6, ids).value(), [&](int32_t b, int32_t q, int32_t k) {
    return q < 6 && k < 6 && ids[b * 6 + q] == ids[b * 6 + k];
  });
}

TEST(MaskRuleTest, TheSharedPrefixIsSeenByAll) {
  ExpectIs(SharedPrefixMask(4), [](int32_t, int32_t, int32_t k) { return k < 4; });
  ExpectIs(SharedPrefixMask(0), [](int32_t, int32_t, int32_t) { return false; });
}

TEST(MaskRuleTest, AnOffsetMovesQueriesAndKeys) {
  ExpectIs(OffsetMask(SlidingWindowMask(4), {.query = 9, .key = 6}),
           [](int32_t, int32_t q, int32_t k) { return k + 6 <= q + 9 && q + 9 - (k + 6) < 4; });
}

TEST(MaskRuleTest, ACustomPredicateSeesBatchHeadQueryAndKey) {
  const Mask mask = CustomMask([](const MaskRow& row, int32_t key) {
    return (row.batch + 2 * row.head + 3 * row.query + 5 * key) % 4 == 0;
  });
  for (int32_t head : {0, 3}) {
    const std::vector<MaskRows> batch = CompileBatch(mask, {2, 6, 7}, head);
    EXPECT_EQ(
        Tabulate(2, 6, 7, [&](int32_t b, int32_t q, int32_t k) { return batch[b].Allows(q, k); }),
        Tabulate(2, 6, 7, [&](int32_t b, int32_t q, int32_t k) {
          return (b + 2 * head + 3 * q + 5 * k) % 4 == 0;
        }));
  }
}

TEST(MaskRuleTest, ALayoutsMaskIsTheSegmentMask) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    const SegmentMask segment_mask(&layout);
    ExpectIs(LayoutMask(layout),
             [&](int32_t, int32_t q, int32_t k) { return segment_mask.Allows(q, k); });
  }
}

TEST(MaskRuleTest, TheSegmentMaskIsAComposition) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const SegmentLayout layout = RandomLayout(random);
    // Prefix 0, segments 1, 2, ...; separators -1, fused tokens -2.
    std::vector<int32_t> owners;
    for (int32_t i = 0; i < kKeys; ++i) {
      const bool is_fused = i >= layout.original_length();
      owners.push_back(is_fused                     ? -2
                       : i < layout.prefix_length() ? 0
                       : layout.SegmentOf(i) < 0    ? -1
                                                    : 1 + layout.SegmentOf(i));
    }
    const Mask owned =
        CustomMask([&](const MaskRow& row, int32_t) { return owners[row.query] >= 0; });
    const Mask fused =
        CustomMask([&](const MaskRow& row, int32_t) { return owners[row.query] == -2; });
    const Mask same = PackedMask::FromSequenceIds(1, kKeys, owners).value();
    const Mask composed = AndMask(
        {CausalMask(), OrMask({fused, AndMask({owned, same}),
                               AndMask({owned, SharedPrefixMask(layout.prefix_length())})})});
    const MaskRows::Slice slice = {.num_queries = kKeys, .num_keys = kKeys};
    ASSERT_EQ(MaskRows::Compile(composed, slice), MaskRows::Compile(LayoutMask(layout), slice));
  }
}

// Rows that are compiled say what the predicate says, and are well formed.
TEST(MaskAlgebraTest, CompiledRowsEqualThePredicateForFuzzedCompositions) {
  int with_several_ranges = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const Mask mask = RandomMask(random, kBatch, /*depth=*/3);
    const MaskShape shape = {kBatch, Below(random, 24), Below(random, 24)};
    const std::vector<MaskRows> batch = CompileBatch(mask, shape, /*head=*/1);
    for (int32_t b = 0; b < kBatch; ++b) {
      int64_t allowed = 0;
      for (int32_t q = 0; q < shape.num_queries; ++q) {
        int32_t previous_end = -1;
        with_several_ranges += batch[b].KeysOf(q).size() > 1;
        for (const TokenRange& keys : batch[b].KeysOf(q)) {
          ASSERT_GT(keys.begin, previous_end);
          ASSERT_GT(keys.end, keys.begin);
          ASSERT_LE(keys.end, shape.num_keys);
          previous_end = keys.end;
        }
        int64_t row_allowed = 0;
        for (int32_t k = 0; k < shape.num_keys; ++k) {
          const bool allows = mask.Allows({.batch = b, .head = 1, .query = q}, k);
          ASSERT_EQ(batch[b].Allows(q, k), allows) << "q " << q << " k " << k;
          row_allowed += allows;
        }
        ASSERT_EQ(batch[b].CountAllowed(q), row_allowed);
        allowed += row_allowed;
      }
      ASSERT_EQ(batch[b].CountAllowed(), allowed);
    }
  }
  EXPECT_GT(with_several_ranges, 5000);
}

// A window of keys gives the part of the row inside it.
TEST(MaskAlgebraTest, AWindowOfKeysCutsEveryRuleAlike) {
  for (uint32_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const Mask mask = RandomMask(random, 1, /*depth=*/2);
    const int32_t begin = Below(random, 12), end = begin + Below(random, 12);
    for (int32_t q = 0; q < 20; ++q) {
      std::vector<TokenRange> keys = {{0, 99}};  // what stands there stays
      mask.AppendKeys({.query = q}, {begin, end}, &keys);
      ASSERT_EQ(keys.front(), (TokenRange{0, 99}));
      std::vector<bool> seen(end, false);
      for (size_t i = 1; i < keys.size(); ++i) {
        ASSERT_GE(keys[i].begin, begin);
        ASSERT_LE(keys[i].end, end);
        for (int32_t k = keys[i].begin; k < keys[i].end; ++k) seen[k] = true;
      }
      for (int32_t k = begin; k < end; ++k) {
        ASSERT_EQ(seen[k], mask.Allows({.query = q}, k)) << "q " << q << " k " << k;
      }
    }
  }
}

class MaskLawTest : public testing::Test {
 protected:
  static MaskRows Rows(const Mask& mask) {
    return MaskRows::Compile(mask, {.num_queries = 15, .num_keys = 19, .batch = 1});
  }
};

TEST_F(MaskLawTest, AndAndOrAreCommutativeAssociativeIdempotentAndDistributive) {
  for (uint32_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const Mask a = RandomMask(random, 2, 1), b = RandomMask(random, 2, 1),
               c = RandomMask(random, 2, 1);
    ASSERT_EQ(Rows(AndMask({a, b})), Rows(AndMask({b, a})));
    ASSERT_EQ(Rows(OrMask({a, b})), Rows(OrMask({b, a})));
    ASSERT_EQ(Rows(AndMask({a, AndMask({b, c})})), Rows(AndMask({a, b, c})));
    ASSERT_EQ(Rows(OrMask({a, OrMask({b, c})})), Rows(OrMask({a, b, c})));
    ASSERT_EQ(Rows(AndMask({a, a})), Rows(a));
    ASSERT_EQ(Rows(OrMask({a, a})), Rows(a));
    ASSERT_EQ(Rows(AndMask({a, OrMask({b, c})})), Rows(OrMask({AndMask({a, b}), AndMask({a, c})})));
    ASSERT_EQ(Rows(OrMask({a, AndMask({b, c})})), Rows(AndMask({OrMask({a, b}), OrMask({a, c})})));
    ASSERT_EQ(Rows(AndMask({a, OrMask({a, b})})), Rows(a));
  }
}

TEST_F(MaskLawTest, WithoutOperandsAndIsEverythingAndOrIsNothing) {
  EXPECT_EQ(Rows(AndMask({})).CountAllowed(), 15 * 19);
  EXPECT_EQ(Rows(OrMask({})).CountAllowed(), 0);
}

TEST_F(MaskLawTest, OffsetsAddUpAndGoInside) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const Mask a = RandomMask(random, 2, 1), b = RandomMask(random, 2, 1);
    ASSERT_EQ(Rows(OffsetMask(OffsetMask(a, {1, 2}), {3, 4})), Rows(OffsetMask(a, {4, 6})));
    ASSERT_EQ(Rows(OffsetMask(AndMask({a, b}), {2, 1})),
              Rows(AndMask({OffsetMask(a, {2, 1}), OffsetMask(b, {2, 1})})));
    ASSERT_EQ(Rows(OffsetMask(a, {})), Rows(a));
  }
}

TEST(MaskRuleTest, APaddingOrSequenceListOfAnotherSizeIsRefused) {
  const absl::Status padding = PaddingMask::Create(2, 3, {1, 1}).status();
  EXPECT_EQ(padding.message(),
            "padding: 2 values is not valid: must be [batch, length] = [2, 3], neither negative");
  EXPECT_FALSE(PackedMask::FromSequenceIds(-1, -2, {1, 1}).ok());
}

}  // namespace
}  // namespace chorus
