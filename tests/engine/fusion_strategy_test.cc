#include "core/engine/fusion_strategy.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<TokenRange> RowsOf(const std::vector<SequenceRows>& pieces) {
  std::vector<TokenRange> rows;
  for (const SequenceRows& piece : pieces) rows.push_back(piece.rows);
  return rows;
}

std::vector<TokenRange> UsesOf(const SequencePlan& sequence) {
  std::vector<TokenRange> tokens;
  for (const SegmentUse& use : sequence.uses) tokens.push_back(use.tokens);
  return tokens;
}

Request Sequential(int32_t num_separator_tokens, SeparatorPolicy policy) {
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.fusion.positions = PositionMode::kSequential;
  request.fusion.separators = policy;
  request.separator.assign(num_separator_tokens, 60);
  return request;
}

TEST(FusionStrategyTest, SuffixHoldsBackItsLastRowOnly) {
  const FusionPlan plan = *PlanFusion(Sequential(0, SeparatorPolicy::kIsolated));
  ASSERT_THAT(plan.sequences, SizeIs(1));
  EXPECT_THAT(plan.sequences[0].token_ids,
              ElementsAre(10, 11, 12, 20, 21, 22, 23, 30, 31, 40, 41, 42, 50, 51));
  const GenerationPlan& generation = plan.generations[0];
  EXPECT_THAT(UsesOf(plan.sequences[0]), ElementsAre(FieldsAre(0, 3), FieldsAre(3, 7),
                                                     FieldsAre(7, 9), FieldsAre(9, 12)));
  EXPECT_THAT(RowsOf(generation.early_rows), ElementsAre(FieldsAre(12, 13)));
  EXPECT_THAT(RowsOf(generation.final_rows), ElementsAre(FieldsAre(13, 14)));
  EXPECT_THAT(generation.first_rows, ElementsAre(FieldsAre(0, 13)));
  EXPECT_EQ(generation.first_rule, CombineRule::kNone);
}

// Without a prefix SEQUENTIAL segments are computed elsewhere and moved: as far as the windows let
// them.
TEST(FusionStrategyTest, ChunkedLayersMoveSegmentsByWholeChunksOnly) {
  Request request = Sequential(0, SeparatorPolicy::kIsolated);
  request.prefix.clear();  // segments at 0, 4, 6
  const auto places = [&](const std::vector<AttentionWindow>& windows) {
    std::vector<std::pair<int32_t, int32_t>> result;
    const FusionPlan plan = *PlanFusion(request, windows);
    for (const SegmentUse& use : plan.sequences[0].uses) {
      result.push_back({use.begin_position, use.moved_by});
    }
    return result;
  };
  using Kind = AttentionWindow::Kind;
  const std::pair<int32_t, int32_t> start = {0, 0};
  EXPECT_THAT(places({}), ElementsAre(start, FieldsAre(0, 4), FieldsAre(0, 6)));
  EXPECT_THAT(places({{Kind::kSliding, 3}, {}}),
              ElementsAre(start, FieldsAre(0, 4), FieldsAre(0, 6)));
  EXPECT_THAT(places({{}, {Kind::kChunked, 4}}),
              ElementsAre(start, FieldsAre(0, 4), FieldsAre(2, 4)));
  EXPECT_THAT(places({{Kind::kChunked, 8192}, {Kind::kSliding, 3}}),
              ElementsAre(start, FieldsAre(4, 0), FieldsAre(6, 0)));
  EXPECT_FALSE(PlanFusion(request)->has_windows);
  EXPECT_TRUE(PlanFusion(request, std::vector<AttentionWindow>{{Kind::kSliding, 3}})->has_windows);
}

TEST(FusionStrategyTest, FuseFirstReadsEverySegmentsLastOwnToken) {
  Request request = Sequential(2, SeparatorPolicy::kAttached);
  request.suffix.clear();
  request.fusion.weights = {1, 2, 1};
  const FusionPlan plan = *PlanFusion(request);
  const GenerationPlan& generation = plan.generations[0];
  // prefix 0..3, segments [3, 7)+2, [9, 11)+2, [13, 16)
  EXPECT_THAT(generation.first_rows,
              ElementsAre(FieldsAre(0, 6), FieldsAre(0, 10), FieldsAre(0, 15)));
  EXPECT_THAT(RowsOf(generation.final_rows),
              ElementsAre(FieldsAre(6, 9), FieldsAre(10, 13), FieldsAre(15, 16)));
  // A cached segment has no logits: the tails are the sequence's own.
  EXPECT_THAT(UsesOf(plan.sequences[0]), ElementsAre(FieldsAre(0, 3), FieldsAre(3, 6),
                                                     FieldsAre(9, 10), FieldsAre(13, 15)));
  EXPECT_THAT(generation.early_rows, IsEmpty());
  EXPECT_EQ(generation.first_rule, CombineRule::kLogitMean);
  EXPECT_THAT(generation.first_weights, ElementsAre(0.25f, 0.5f, 0.25f));
  EXPECT_EQ(generation.rule, CombineRule::kNone);
}

TEST(FusionStrategyTest, LastSegmentIsTheCallersLastInAnyCanonicalOrder) {
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.suffix.clear();
  request.fusion.first_token = FirstToken::kLastSegment;
  std::sort(request.prompts.begin(), request.prompts.end());
  do {
    const FusionPlan plan = *PlanFusion(request);
    ASSERT_THAT(plan.generations[0].first_rows, SizeIs(1));
    const int32_t row = plan.generations[0].first_rows[0].row;
    EXPECT_EQ(plan.sequences[0].token_ids[row], request.prompts.back().back());
  } while (std::next_permutation(request.prompts.begin(), request.prompts.end()));
}

TEST(FusionStrategyTest, CanonicalOrderIsOneForAllOrdersAndWeightsGoWithTheirPrompts) {
  Request request = SimpleRequest(FusionMethod::kProbMean, 4);
  request.prompts = {{20}, {30}, {40}, {20}};
  request.fusion.weights = {1, 2, 3, 4};
  Request other = request;
  other.prompts = {{20}, {20}, {40}, {30}};
  other.fusion.weights = {4, 1, 3, 2};
  const FusionPlan a = *PlanFusion(request);
  const FusionPlan b = *PlanFusion(other);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(a.sequences[i].token_ids, b.sequences[i].token_ids);
  }
  EXPECT_EQ(a.generations[0].weights, b.generations[0].weights);
}

TEST(FusionStrategyTest, IsolatedSeparatorsAreTheSequencesOwn) {
  const FusionPlan plan = *PlanFusion(Sequential(2, SeparatorPolicy::kIsolated));
  EXPECT_THAT(UsesOf(plan.sequences[0]), ElementsAre(FieldsAre(0, 3), FieldsAre(3, 7),
                                                     FieldsAre(9, 11), FieldsAre(13, 16)));
  EXPECT_THAT(RowsOf(plan.generations[0].early_rows),
              ElementsAre(FieldsAre(7, 9), FieldsAre(11, 13), FieldsAre(16, 17)));
}

TEST(FusionStrategyTest, SequentialSegmentsWithoutPrefixAreComputedAtZeroAndMoved) {
  Request request = Sequential(1, SeparatorPolicy::kAttached);
  const FusionPlan behind_prefix = *PlanFusion(request);
  for (const SegmentUse& use : behind_prefix.sequences[0].uses) EXPECT_EQ(use.moved_by, 0);
  EXPECT_EQ(behind_prefix.sequences[0].uses[2].begin_position, 8);
  request.prefix.clear();
  const FusionPlan plan = *PlanFusion(request);
  // [0, 5) [5, 8) [8, 11)
  const std::vector<SegmentUse>& uses = plan.sequences[0].uses;
  ASSERT_THAT(uses, SizeIs(3));
  for (size_t i = 0; i < uses.size(); ++i) {
    EXPECT_EQ(uses[i].begin_position, 0);
    EXPECT_EQ(uses[i].moved_by, uses[i].tokens.begin);
    EXPECT_FALSE(uses[i].sees_prefix);
  }
  EXPECT_EQ(plan.num_slots, (11 + 2 + 4) + 3 + 4) << "the moved ones count twice, at most";
}

TEST(FusionStrategyTest, AllMethodsUseTheSameSegments) {
  const FusionPlan attention = *PlanFusion(SimpleRequest(FusionMethod::kAttention, 4));
  std::set<uint64_t> hashes;
  for (const SegmentUse& use : attention.sequences[0].uses) hashes.insert(use.hash);
  EXPECT_THAT(hashes, SizeIs(4));
  for (const FusionMethod method : {FusionMethod::kLogitMean, FusionMethod::kVote}) {
    const FusionPlan plan = *PlanFusion(SimpleRequest(method, 4));
    for (const SequencePlan& sequence : plan.sequences) {
      ASSERT_THAT(sequence.uses, SizeIs(2));
      for (const SegmentUse& use : sequence.uses) EXPECT_TRUE(hashes.contains(use.hash));
      EXPECT_EQ(sequence.uses[1].begin_position, 3);
      EXPECT_TRUE(sequence.uses[1].sees_prefix);
    }
  }
}

TEST(FusionStrategyTest, LogitSequencesRunTheirOwnRowsOnly) {
  const FusionPlan plan = *PlanFusion(SimpleRequest(FusionMethod::kLogitMax, 4));
  ASSERT_THAT(plan.sequences, SizeIs(3));
  ASSERT_THAT(plan.generations, SizeIs(1));
  EXPECT_THAT(plan.generations[0].early_rows, SizeIs(3));  // the suffix's first token
  EXPECT_THAT(plan.generations[0].final_rows, SizeIs(3));
  EXPECT_EQ(plan.num_slots, 18 + 3 * 4);
  EXPECT_EQ(plan.generations[0].rule, CombineRule::kLogitMax);
}

TEST(FusionStrategyTest, CompanionsUseTheFusedSequencesSegments) {
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.fusion.scaling = SegmentScaling{0.9f, 0.8f, -0.5f};
  const FusionPlan plain = *PlanFusion(request);
  request.response.prompt_disagreement = true;
  const FusionPlan plan = *PlanFusion(request);
  ASSERT_THAT(plan.sequences, SizeIs(4));
  EXPECT_EQ(plan.sequences[0].token_ids, plain.sequences[0].token_ids);
  EXPECT_TRUE(plan.sequences[0].scales_segments);
  std::set<uint64_t> hashes;
  for (const SegmentUse& use : plan.sequences[0].uses) hashes.insert(use.hash);
  for (size_t i = 1; i < plan.sequences.size(); ++i) {
    EXPECT_FALSE(plan.sequences[i].scales_segments);
    for (const SegmentUse& use : plan.sequences[i].uses) EXPECT_TRUE(hashes.contains(use.hash));
  }
  const GenerationPlan& generation = plan.generations[0];
  EXPECT_EQ(generation.num_companions, 3);
  EXPECT_EQ(generation.num_combined(), 1);
  EXPECT_THAT(generation.sequence_indexes, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(generation.first_rows, SizeIs(1));
  EXPECT_THAT(generation.first_compared_rows, SizeIs(3));
  EXPECT_EQ(generation.prompt_tokens, plain.generations[0].prompt_tokens);
  // A suffix of two and four generated tokens for each prompt.
  EXPECT_EQ(plan.num_slots, plain.num_slots + 3 * (2 + 4));
  EXPECT_EQ(plan.prompt_tokens, plain.prompt_tokens + 3 * 2);
}

TEST(FusionStrategyTest, PerPromptKeepsTheCallersOrderAndDrawsApart) {
  const FusionPlan plan = *PlanFusion(SimpleRequest(FusionMethod::kPerPrompt, 4));
  ASSERT_THAT(plan.generations, SizeIs(3));
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(plan.generations[i].prompt_index, i);
    EXPECT_EQ(plan.generations[i].draw_seed, PromptSeed(0, i));
    EXPECT_THAT(plan.generations[i].sequence_indexes, ElementsAre(i));
  }
  EXPECT_NE(PromptSeed(0, 1), PromptSeed(1, 0));
}

}  // namespace
}  // namespace chorus
