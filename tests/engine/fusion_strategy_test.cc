#include "core/engine/fusion_strategy.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/engine/step_plan_builder.h"
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
  EXPECT_THAT(RowsOf(generation.early_rows), ElementsAre(FieldsAre(0, 13)));
  EXPECT_THAT(RowsOf(generation.final_rows), ElementsAre(FieldsAre(13, 14)));
  EXPECT_THAT(generation.first_rows, ElementsAre(FieldsAre(0, 13)));
  EXPECT_EQ(generation.first_rule, CombineRule::kNone);
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
  EXPECT_THAT(RowsOf(generation.early_rows),
              ElementsAre(FieldsAre(0, 6), FieldsAre(9, 10), FieldsAre(13, 15)));
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

TEST(FusionStrategyTest, LogitSequencesRunTheSharedPrefixOnce) {
  const FusionPlan plan = *PlanFusion(SimpleRequest(FusionMethod::kLogitMax, 4));
  ASSERT_THAT(plan.sequences, SizeIs(3));
  ASSERT_THAT(plan.generations, SizeIs(1));
  EXPECT_EQ(plan.shared_prefix, 3);
  int32_t num_rows = 0;
  for (const auto* pieces : {&plan.generations[0].early_rows, &plan.generations[0].final_rows}) {
    for (const SequenceRows& piece : *pieces) {
      num_rows += piece.rows.length();
      EXPECT_TRUE(piece.sequence_index == 0 || piece.rows.begin >= 3);
    }
  }
  EXPECT_EQ(num_rows, plan.prompt_tokens);
  EXPECT_EQ(plan.num_slots, 18 + 3 * 4);
  EXPECT_EQ(plan.generations[0].rule, CombineRule::kLogitMax);
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

std::unique_ptr<RunningRequest> Running(const Request& request, SlotAllocator* allocator) {
  auto pending = std::make_unique<PendingRequest>(
      PendingRequest{request, *PlanFusion(request), std::make_shared<RecordingSink>(),
                     std::make_shared<std::atomic<bool>>(false), absl::UnixEpoch()});
  return std::make_unique<RunningRequest>(std::move(pending), allocator, std::vector<int32_t>{},
                                          &TestTokenizer());
}

TEST(SchedulerTest, FillsTheBudgetWithPromptRowsInOrderOfAdmission) {
  SlotAllocator allocator(1000);
  const auto a = Running(SimpleRequest(FusionMethod::kAttention, 4), &allocator);  // 14 rows
  const auto b = Running(SimpleRequest(FusionMethod::kAttention, 4), &allocator);
  RunningRequest* requests[] = {a.get(), b.get()};
  const auto works = Scheduler(20).PlanStep(requests);
  ASSERT_THAT(works, SizeIs(2));
  EXPECT_TRUE(works[0].request == a.get() && works[0].chooses());
  EXPECT_TRUE(works[1].request == b.get() && !works[1].chooses());
  EXPECT_EQ(works[1].num_early_rows, 6);
  const StepPlan plan = BuildStepPlan(works);
  EXPECT_EQ(plan.num_rows(), 20);
  EXPECT_THAT(plan.choices, SizeIs(1));
  EXPECT_THAT(plan.choices[0].rows, ElementsAre(13));
}

TEST(SchedulerTest, FinalRowsThatExceedTheBudgetRunAlone) {
  SlotAllocator allocator(1000);
  const auto a = Running(SimpleRequest(FusionMethod::kLogitMean, 4), &allocator);
  RunningRequest* requests[] = {a.get()};
  const Scheduler scheduler(2);
  Generation& generation = a->generation(0);
  while (!generation.prompt_done()) {
    const auto works = scheduler.PlanStep(requests);
    ASSERT_THAT(works, SizeIs(1));
    EXPECT_EQ(works[0].final_rows, generation.num_early_rows_left() == 0);
    EXPECT_LE(works[0].num_early_rows, 2);
    generation.AdvancePrompt(works[0].num_early_rows, works[0].final_rows);
  }
}

TEST(StepPlanTest, ScalingAppliesToFusedRowsOnly) {
  SlotAllocator allocator(1000);
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.fusion.scaling = SegmentScaling{0.9f, 1.0f, 0.0f};
  const auto a = Running(request, &allocator);
  RunningRequest* requests[] = {a.get()};
  const StepPlan plan = BuildStepPlan(Scheduler(100).PlanStep(requests));
  EXPECT_THAT(plan.attention.scalings, ElementsAre(*request.fusion.scaling));
  for (const AttentionRun& run : plan.attention.runs) {
    EXPECT_EQ(run.scaling, run.query_begin >= 12 ? 0 : -1);
  }
  request.fusion.scaling = SegmentScaling{};  // the identity
  const auto b = Running(request, &allocator);
  requests[0] = b.get();
  EXPECT_THAT(BuildStepPlan(Scheduler(100).PlanStep(requests)).attention.scalings, IsEmpty());
}

}  // namespace
}  // namespace chorus
