#include "core/engine/scheduler.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/engine/step_plan_builder.h"
#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = StepWork::Kind;

// Requests with KV space, and the steps that a scheduler plans for them.
class SchedulerTest : public ::testing::Test {
 protected:
  RunningRequest* Add(const Request& request,
                      absl::Span<const AttentionWindow> layer_windows = {}) {
    auto pending =
        std::make_unique<PendingRequest>(PendingRequest{request,
                                                        *PlanFusion(request, layer_windows),
                                                        std::make_shared<RecordingSink>(),
                                                        std::make_shared<std::atomic<bool>>(false),
                                                        absl::UnixEpoch(),
                                                        {}});
    owned_.push_back(std::make_unique<RunningRequest>(std::move(pending), &cache_,
                                                      std::vector<int32_t>{}, &TestTokenizer()));
    EXPECT_TRUE(owned_.back()->TakeKv());
    requests_.push_back(owned_.back().get());
    return requests_.back();
  }

  // A single prompt of `length` tokens that no other has.
  Request Prompt(int32_t length) {
    Request request;
    request.prompts = {RandomTokens(random_, length)};
    request.suffix = {50};
    request.stopping.ignore_eos = true;
    request.stopping.max_new_tokens = 1000;
    return request;
  }

  // Plans a step and makes as if it had run; every choice gives token 20.
  std::vector<StepWork> Step(Scheduler& scheduler) {
    for (RunningRequest* request : requests_) EXPECT_TRUE(request->GrowKv());
    std::vector<StepWork> works = scheduler.PlanStep(requests_);
    for (const StepWork& work : works) {
      if (work.kind == Kind::kSegment) work.segment->FillUpTo(work.segment_rows.end);
    }
    for (const StepWork& work : works) {
      if (work.kind == Kind::kOwn) {
        work.request->generation(work.generation_index)
            .Advance(work.num_early_rows, work.num_final_rows > 0);
      }
      ChosenToken token;
      token.token_id = 20;
      if (work.num_choices() > 0) work.request->Append(work.generation_index, token, {});
    }
    return works;
  }

  static int64_t Rows(const std::vector<StepWork>& works, const RunningRequest* request,
                      bool decode) {
    int64_t rows = 0;
    for (const StepWork& work : works) {
      if (work.request == request && (work.kind == Kind::kDecode) == decode) {
        rows += work.num_rows();
      }
    }
    return rows;
  }

  std::mt19937 random_{1};
  SegmentCache cache_{100000, 100000};
  std::vector<std::unique_ptr<RunningRequest>> owned_;
  std::vector<RunningRequest*> requests_;
};

TEST_F(SchedulerTest, ReadsOnePromptWithAllRowsIfNothingGenerates) {
  const RunningRequest* a = Add(Prompt(300));
  Scheduler scheduler({.max_step_rows = 200, .prompt_share_rows = 16});
  EXPECT_EQ(Rows(Step(scheduler), a, false), 200);
  const auto works = Step(scheduler);
  EXPECT_EQ(Rows(works, a, false), 101);
  EXPECT_GT(works.back().num_choices(), 0);
  EXPECT_EQ(Rows(Step(scheduler), a, true), 1);
}

TEST_F(SchedulerTest, ALongPromptGetsItsShareBesideWhatGenerates) {
  Scheduler scheduler({.max_step_rows = 512, .prompt_share_rows = 16});
  std::vector<const RunningRequest*> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(Add(Prompt(4)));
  Step(scheduler);
  const RunningRequest* long_one = Add(Prompt(2000));
  int64_t steps = 0;
  while (long_one->generation(0).reading()) {
    const auto works = Step(scheduler);
    for (const RunningRequest* stream : streams) EXPECT_EQ(Rows(works, stream, true), 1);
    EXPECT_LE(Rows(works, long_one, false), 16);
    ++steps;
  }
  EXPECT_EQ(steps, (2001 + 15) / 16);
}

TEST_F(SchedulerTest, TheMorePromptsWaitTheMoreRowsTheyGet) {
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  Add(Prompt(4));
  Step(scheduler);
  for (int num_readers : {1, 2, 3, 50}) {
    while (static_cast<int>(requests_.size()) < 1 + num_readers) Add(Prompt(1000));
    int64_t rows = 0;
    for (const StepWork& work : Step(scheduler)) {
      if (work.kind != Kind::kDecode) rows += work.num_rows();
    }
    EXPECT_EQ(rows, std::min(16 * num_readers, 99));
  }
}

TEST_F(SchedulerTest, AShortPromptPassesALongOne) {
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const RunningRequest* long_one = Add(Prompt(1000));
  const RunningRequest* short_one = Add(Prompt(20));
  const auto works = Step(scheduler);
  EXPECT_EQ(Rows(works, short_one, false), 21);
  EXPECT_EQ(Rows(works, long_one, false), 79) << "what is left goes to the most urgent";
  EXPECT_FALSE(short_one->generation(0).reading());
}

TEST_F(SchedulerTest, SharedSegmentsAreReadOnceInAStep) {
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const Request request = SimpleRequest(FusionMethod::kAttention, 4);
  const RunningRequest* a = Add(request);
  const RunningRequest* b = Add(request);
  const auto works = Step(scheduler);
  EXPECT_EQ(Rows(works, a, false), 14);
  EXPECT_EQ(Rows(works, b, false), 2) << "the suffix alone";
  EXPECT_FALSE(b->generation(0).reading());
}

TEST_F(SchedulerTest, OwnRowsWaitForTheSegmentsThatTheySee) {
  Scheduler scheduler({.max_step_rows = 5, .prompt_share_rows = 16});
  Add(SimpleRequest(FusionMethod::kAttention, 4));  // prefix 3, prompts 4, 2, 3, suffix 2
  for (int step = 0; step < 2; ++step) {
    for (const StepWork& work : Step(scheduler)) EXPECT_EQ(work.kind, Kind::kSegment);
  }
  const auto works = Step(scheduler);
  EXPECT_EQ(works[0].kind, Kind::kSegment);
  EXPECT_EQ(works[1].kind, Kind::kOwn);
  EXPECT_GT(works[1].num_choices(), 0);
}

TEST_F(SchedulerTest, FinalRowsThatExceedTheBudgetRunAlone) {
  const RunningRequest* a = Add(SimpleRequest(FusionMethod::kLogitMean, 4));
  Scheduler scheduler({.max_step_rows = 2, .prompt_share_rows = 1});
  while (a->generation(0).reading()) {
    const auto works = Step(scheduler);
    int64_t rows = 0;
    for (const StepWork& work : works) rows += work.num_rows();
    EXPECT_LE(rows, works.back().num_choices() > 0 ? 3 : 2);
  }
}

TEST_F(SchedulerTest, TooManyGeneratingRowsTakeTurns) {
  Scheduler scheduler({.max_step_rows = 4, .prompt_share_rows = 1});
  for (int i = 0; i < 6; ++i) Add(Prompt(1));
  for (const RunningRequest* request : requests_) {
    while (request->generation(0).reading()) Step(scheduler);
  }
  std::vector<int64_t> rows(6, 0);
  for (int step = 0; step < 12; ++step) {
    const auto works = Step(scheduler);
    EXPECT_THAT(works, SizeIs(4));
    for (size_t i = 0; i < 6; ++i) rows[i] += Rows(works, requests_[i], true);
  }
  EXPECT_THAT(rows, ElementsAre(8, 8, 8, 8, 8, 8));
}

TEST_F(SchedulerTest, DecodingNeverStopsReading) {
  Scheduler scheduler({.max_step_rows = 4, .prompt_share_rows = 16});
  for (int i = 0; i < 4; ++i) Add(Prompt(1));
  for (const RunningRequest* request : requests_) {
    while (request->generation(0).reading()) Step(scheduler);
  }
  const RunningRequest* reader = Add(Prompt(2));
  EXPECT_EQ(Rows(Step(scheduler), reader, false), 1);
}

TEST_F(SchedulerTest, ScalingAppliesToFusedRowsOnly) {
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.fusion.scaling = SegmentScaling{0.9f, 1.0f, 0.0f};
  Add(request);
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const StepPlan plan = BuildStepPlan(scheduler.PlanStep(requests_));
  EXPECT_THAT(plan.attention.scalings, ElementsAre(*request.fusion.scaling));
  for (const AttentionRun& run : plan.attention.runs) {
    EXPECT_EQ(run.scaling, run.query_begin >= 12 ? 0 : -1);
  }
  requests_.clear();
  request.fusion.scaling = SegmentScaling{};  // the identity
  Add(request);
  EXPECT_THAT(BuildStepPlan(scheduler.PlanStep(requests_)).attention.scalings, IsEmpty());
}

TEST_F(SchedulerTest, RunsAreFusedFromTheSuffixOn) {
  const RunningRequest* added = Add(SimpleRequest(FusionMethod::kAttention, 4));
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const int32_t original_length = added->sequence(0).plan().layout.original_length();
  const auto runs = [&] { return BuildStepPlan(scheduler.PlanStep(requests_)).attention.runs; };
  int32_t num_own_runs = 0, num_fused_runs = 0;
  for (const AttentionRun& run : runs()) {
    EXPECT_EQ(run.is_fused, run.query_begin >= original_length);
    (run.is_fused ? num_fused_runs : num_own_runs) += 1;
  }
  EXPECT_GE(num_own_runs, 2);  // the segments
  EXPECT_GE(num_fused_runs, 1);
  Step(scheduler);
  ASSERT_TRUE(requests_.front()->GrowKv());
  ASSERT_THAT(runs(), SizeIs(1));  // a generated token
  EXPECT_TRUE(runs().front().is_fused);
}

// The intervals for layers with a window hold the same keys, and say where they stand.
TEST_F(SchedulerTest, RunsHaveWindowedIntervalsWhereTheModelHasWindows) {
  const AttentionWindow windows[] = {{}, {AttentionWindow::Kind::kSliding, 3}};
  const Request request = SimpleRequest(FusionMethod::kAttention, 4);
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const RunningRequest* added = Add(request, windows);
  const StepPlan plan = BuildStepPlan(scheduler.PlanStep(requests_));
  const std::vector<KeyInterval>& intervals = plan.attention.intervals;
  for (const AttentionRun& run : plan.attention.runs) {
    for (int32_t row = run.row_begin; row < run.row_end; ++row) {
      EXPECT_EQ(plan.positions[row], run.position_begin + row - run.row_begin);
    }
    std::vector<int32_t> keys, windowed_keys;
    for (int32_t i = run.interval_begin; i < run.interval_end; ++i) {
      for (int32_t k = intervals[i].begin; k < intervals[i].end; ++k) keys.push_back(k);
    }
    for (int32_t i = run.windowed_begin; i < run.windowed_end; ++i) {
      for (int32_t k = intervals[i].begin; k < intervals[i].end; ++k) windowed_keys.push_back(k);
    }
    EXPECT_EQ(windowed_keys, keys);
  }
  // The last run is the fused rows': cut at every segment after the first, and at the suffix.
  const AttentionRun& fused = plan.attention.runs.back();
  ASSERT_EQ(fused.windowed_end - fused.windowed_begin, 4);
  EXPECT_EQ(fused.interval_end - fused.interval_begin, 1);
  for (int32_t i = fused.windowed_begin; i < fused.windowed_end; ++i) {
    EXPECT_EQ(intervals[i].begin + intervals[i].position_shift,
              added->sequence(0).PositionAt(intervals[i].begin));
  }
  requests_.clear();
  Add(request);
  for (const AttentionRun& run : BuildStepPlan(scheduler.PlanStep(requests_)).attention.runs) {
    EXPECT_EQ(run.windowed_end, 0);
  }
}

TEST_F(SchedulerTest, SegmentsAreMovedInTheStepThatFirstReadsThem) {
  Request request = SimpleRequest(FusionMethod::kAttention, 4);
  request.prefix.clear();
  request.fusion.positions = PositionMode::kSequential;
  RunningRequest* a = Add(request);
  Scheduler scheduler({.max_step_rows = 100, .prompt_share_rows = 16});
  const StepPlan plan = BuildStepPlan(scheduler.PlanStep(requests_));
  ASSERT_THAT(plan.attention.moves, SizeIs(2 + 3));
  EXPECT_EQ(plan.attention.moves[0].distance, 4);
  EXPECT_EQ(plan.attention.moves[4].distance, 6);
  EXPECT_EQ(plan.attention.moves[4].from_slot, a->sequence(0).segment(2)->slots()[2]);
  EXPECT_EQ(plan.attention.moves[4].to_slot, a->sequence(0).SlotAt(8));
  // Every segment is computed at position 0.
  EXPECT_THAT(plan.positions, ElementsAre(0, 1, 2, 3, 0, 1, 0, 1, 2, 9, 10));
}

}  // namespace
}  // namespace chorus
