// Explain requests: what they say, what they are refused for, and that others do not feel them.

#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/field_error.h"
#include "core/engine/batch.h"
#include "core/engine/request_validation.h"
#include "tests/engine/engine_test_support.h"
#include "tests/support/fake_probes.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Request ExplainRequest(std::vector<int32_t> steps, int32_t max_new_tokens) {
  Request request = SimpleRequest(FusionMethod::kAttention, max_new_tokens);
  request.id = "explain";
  request.explain = {.layers = {0, 2}, .heads = {1, 3}, .steps = std::move(steps)};
  return request;
}

std::vector<AttentionStep> StepsOf(const RecordingSink& sink) {
  std::vector<AttentionStep> steps;
  for (const TokenEvent& event : sink.events()) {
    steps.insert(steps.end(), event.attention_steps.begin(), event.attention_steps.end());
  }
  return steps;
}

void ExpectSameSteps(const std::vector<AttentionStep>& want,
                     const std::vector<AttentionStep>& got) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].step, want[i].step);
    EXPECT_EQ(got[i].mass, want[i].mass);
    ASSERT_EQ(got[i].logits.size(), want[i].logits.size());
    for (size_t k = 0; k < want[i].logits.size(); ++k) {
      EXPECT_TRUE(got[i].logits[k] == want[i].logits[k] ||
                  (std::isnan(got[i].logits[k]) && std::isnan(want[i].logits[k])));
    }
  }
}

TEST(ExplainTest, GivesLayersHeadsAndUnitsOfEachStep) {
  TestEngine test;
  const auto sink = test.Run(ExplainRequest({0, 2}, 4));
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  const std::vector<AttentionStep> steps = StepsOf(*sink);
  ASSERT_THAT(steps, SizeIs(2));
  EXPECT_EQ(steps[0].step, 0);
  EXPECT_EQ(steps[1].step, 2);
  constexpr int kNumUnits = 3 + 4;
  const std::vector<int32_t> layers = {0, 2}, heads = {1, 3};
  const std::vector<int> keys = {3, 4, 2, 3, /*separators=*/0, 2, /*generated=*/0};
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSERT_THAT(steps[i].logits, SizeIs(2 * 2 * kNumUnits));
    ASSERT_THAT(steps[i].mass, SizeIs(2 * 2 * kNumUnits));
    for (int at = 0; at < 2 * 2 * kNumUnits; ++at) {
      const int unit = at % kNumUnits;
      const int num_keys = unit == kNumUnits - 1 ? steps[i].step : keys[unit];
      EXPECT_FLOAT_EQ(steps[i].mass[at],
                      static_cast<float>(num_keys) / static_cast<float>(14 + steps[i].step));
      if (num_keys == 0) {
        EXPECT_TRUE(std::isnan(steps[i].logits[at]));
        continue;
      }
      const int32_t layer = layers[at / kNumUnits / 2], head = heads[at / kNumUnits % 2];
      EXPECT_EQ(steps[i].logits[at], fake_model::FakeLogit(layer, head, unit));
    }
  }
  // The same tokens as without.
  Request plain = ExplainRequest({0}, 4);
  plain.explain.reset();
  EXPECT_EQ(test.Run(plain)->StreamedIds(), sink->StreamedIds());
}

// Each of the three rows sees one segment: logits are of the one that does.
TEST(ExplainTest, FuseFirstIsTheMeanOverTheRowsThatSeeAUnit) {
  TestEngine test;
  Request request = ExplainRequest({0}, 1);
  request.suffix.clear();
  const std::vector<AttentionStep> steps = StepsOf(*test.Run(request));
  ASSERT_THAT(steps, SizeIs(1));
  EXPECT_EQ(steps[0].logits[2], fake_model::FakeLogit(0, 1, 2));
  EXPECT_NEAR(steps[0].mass[2], 2 / 5.0 / 3, 1e-6);
}

TEST(ExplainTest, StepsPastTheEndAreLeftOut) {
  FakeModelOptions model;
  model.forced_token = [](const TokenChoice& choice) -> std::optional<int32_t> {
    return choice.draw_index == 2 ? 77 : 20;
  };
  TestEngine test(model);
  Request request = ExplainRequest({1, 2, 5}, 8);
  request.stopping.stop_token_ids = {77};
  const auto sink = test.Run(request);
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  EXPECT_THAT(sink->StreamedIds(), ElementsAre(20, 20));
  const std::vector<AttentionStep> steps = StepsOf(*sink);
  ASSERT_THAT(steps, SizeIs(1));
  EXPECT_EQ(steps[0].step, 1);
}

TEST(ExplainTest, RefusesWhatIsOutOfRangeByName) {
  TestEngine test;
  struct Case {
    std::function<void(Request*)> change;
    std::string field;
    std::string says;
  };
  using Ids = std::vector<int32_t>;
  const std::vector<Case> cases = {
      {[](Request* r) {
         r->explain->layers = {0, 3};
       },
       "layers[1]", "must be in [0, 3)"},
      {[](Request* r) { r->explain->layers = {-1}; }, "layers[0]", "-1"},
      {[](Request* r) {
         r->explain->layers = {1, 1};
       },
       "layers[1]", "above the one before, 1"},
      {[](Request* r) { r->explain->layers.clear(); }, "layers", "nothing"},
      {[](Request* r) { r->explain->heads = {4}; }, "heads[0]", "[0, 4)"},
      {[](Request* r) {
         r->explain->heads = {2, 0};
       },
       "heads[1]", "above the one before, 2"},
      {[](Request* r) {
         r->explain->steps = {0, 4};
       },
       "steps[1]", "[0, 4)"},
      {[](Request* r) { r->explain->steps = Ids{-2}; }, "steps[0]", "-2"},
      {[](Request* r) { r->fusion.method = FusionMethod::kLogitMean; }, "fusion.method",
       "ATTENTION"},
      {[](Request* r) {
         // 2 layers x 2 heads x 7 units: 28 values a step.
         r->stopping.max_new_tokens = 1 << 16;
         r->explain->steps.clear();
         for (int32_t i = 0; i <= kMaxExplainValues / 28; ++i) r->explain->steps.push_back(i);
       },
       "layers", "2 layers x 2 heads x 7 units x 37450 rows"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.field + " " + one.says);
    Request request = ExplainRequest({0}, 4);
    one.change(&request);
    const auto refused = test.engine->Submit(request, std::make_shared<RecordingSink>());
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(FieldOf(refused.status()), one.field);
    EXPECT_TRUE(absl::StrContains(refused.status().message(), one.says)) << refused.status();
  }
}

// The bound counts rows: FUSE_FIRST has one a prompt.
TEST(ExplainTest, RowsOfFuseFirstCountToTheBound) {
  TestEngine test;
  Request request = ExplainRequest({0}, 1);
  request.suffix.clear();
  request.prompts.assign(256, {20, 21});
  request.explain->layers = {0, 1, 2};
  request.explain->heads = {0, 1, 2, 3};
  // 3 x 4 x 260 units x 256 rows = 798,720.
  EXPECT_TRUE(test.Run(request)->status().ok());
  request.explain->steps = {0};
  for (int32_t i = 1; i <= 81; ++i) request.explain->steps.push_back(i);
  request.stopping.max_new_tokens = 100;
  const auto refused = test.engine->Submit(request, std::make_shared<RecordingSink>());
  EXPECT_EQ(FieldOf(refused.status()), "layers");
}

// What ran in each step, told by the seeds of the choices.
struct StepLog {
  std::vector<std::set<uint64_t>> steps;
  std::function<absl::Status(const StepPlan&, int64_t)> Hook(Gate* gate) {
    return [this, gate](const StepPlan& plan, int64_t) {
      gate->Pass();
      std::set<uint64_t> seeds;
      for (const TokenChoice& choice : plan.choices) seeds.insert(choice.sampling->seed);
      steps.push_back(std::move(seeds));
      return absl::OkStatus();
    };
  }
};

TEST(ExplainTest, RunsWhileNothingElseDoesAndSeldomBesides) {
  Gate gate;
  StepLog log;
  FakeModelOptions model;
  model.before_step = log.Hook(&gate);
  TestEngine test(model);
  Request explain = ExplainRequest({0, 5}, 12);
  explain.sampling.seed = 7;
  explain.priority = 100;  // ignored
  Request other = SimpleRequest(FusionMethod::kAttention, 200);
  other.sampling.seed = 1;
  const auto first = test.Submit(other);
  gate.AwaitArrivals(1);
  const auto explained = test.Submit(explain);
  gate.OpenForGood();
  first->Await();
  explained->Await();
  ASSERT_TRUE(explained->status().ok()) << explained->status();
  int num_beside = 0;
  for (size_t i = 0; i < log.steps.size(); ++i) {
    if (log.steps[i].contains(1)) {
      const bool beside = log.steps[i].contains(7);
      num_beside += beside;
      EXPECT_TRUE(!beside || i % Batch::kBackgroundPeriod == 0) << i;
    }
  }
  EXPECT_EQ(num_beside, 3);  // steps 64, 128 and 192: it goes on, however busy the worker is
  EXPECT_THAT(StepsOf(*explained), SizeIs(2));
}

TEST(ExplainTest, OneRunsAtATimeAndFewWait) {
  Gate gate;
  StepLog log;
  FakeModelOptions model;
  model.before_step = log.Hook(&gate);
  EngineOptions options;
  options.max_explain_requests = 3;
  options.max_queued_requests = 1;
  TestEngine test(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < 3; ++i) {
    Request request = ExplainRequest({0}, 5);
    request.sampling.seed = 100 + i;
    sinks.push_back(test.Submit(request));
  }
  const auto refused =
      test.engine->Submit(ExplainRequest({0}, 5), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(refused.status().message(), "3 Explain requests"));
  // They take no place of the queue from others.
  EXPECT_FALSE(test.engine->is_queue_full());
  const auto other = test.Submit(SimpleRequest(FusionMethod::kAttention, 2));
  gate.OpenForGood();
  for (const auto& sink : sinks) sink->Await();
  other->Await();
  for (const std::set<uint64_t>& seeds : log.steps) {
    EXPECT_LE(seeds.contains(100) + seeds.contains(101) + seeds.contains(102), 1);
  }
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
  const CountingObserver::Counts counts = test.observer.counts();
  EXPECT_EQ(counts.accepted, counts.finished);
}

TEST(ExplainTest, TakesNoPlaceOfTheBatchFromOthers) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_running_requests = 1;
  TestEngine test(model, options);
  const auto explained = test.Submit(ExplainRequest({0}, 300));
  gate.Open(2);
  gate.AwaitArrivals(3);
  const auto other = test.Submit(SimpleRequest(FusionMethod::kAttention, 3));
  gate.Open(10);
  other->Await();
  EXPECT_TRUE(other->status().ok());
  EXPECT_FALSE(explained->ended());
  gate.OpenForGood();
  explained->Await();
  EXPECT_TRUE(explained->status().ok());
}

TEST(ExplainTest, GivesItsSpaceToWhoeverComesAndGoesOnToTheSameValues) {
  TestEngine alone;
  Request explain = ExplainRequest({0, 3, 9}, 10);
  const auto want = alone.Run(explain);
  Gate gate;
  FakeModelOptions model;
  model.num_kv_slots = 40;  // 14 + 10 tokens of the one, 30 + 4 of the other
  model.before_step = gate.Hook();
  TestEngine test(model);
  const auto explained = test.Submit(explain);
  gate.Open(4);
  gate.AwaitArrivals(5);
  Request other = SimpleRequest(FusionMethod::kAttention, 4);
  other.id = "other";
  other.prefix.assign(19, 70);
  const auto sink = test.Submit(other);
  gate.OpenForGood();
  sink->Await();
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  explained->Await();
  EXPECT_TRUE(explained->status().ok()) << explained->status();
  EXPECT_THAT(test.observer.counts().finish_order, ElementsAre("other", "explain"));
  EXPECT_EQ(test.observer.counts().preemptions, 1);
  EXPECT_EQ(explained->StreamedIds(), want->StreamedIds());
  ExpectSameSteps(StepsOf(*want), StepsOf(*explained));
}

TEST(ExplainTest, TakesNoSpaceFromAPausedRequest) {
  FakeModelOptions model;
  model.num_kv_slots = 30;
  TestEngine test(model);
  auto paused = std::make_shared<RecordingSink>();
  Request request = SimpleRequest(FusionMethod::kAttention, 5);
  request.prefix.assign(8, 70);  // 19 tokens; beside them 14 have no place
  paused->wants_more = false;
  ASSERT_TRUE(test.engine->Submit(request, paused).ok());
  const auto explained = test.Submit(ExplainRequest({0}, 5));
  const int before = test.observer.counts().heartbeats;
  while (test.observer.counts().heartbeats < before + 5) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(test.observer.counts().preemptions, 0);
  EXPECT_EQ(explained->num_starts(), 0);
  paused->wants_more = true;
  paused->Await();
  explained->Await();
  EXPECT_TRUE(paused->status().ok() && explained->status().ok());
}

TEST(ExplainTest, EndsByCancelAndDeadlineWaitingAndRunning) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestEngine test(model);
  RequestHandle running_handle, waiting_handle;
  const auto running = test.Submit(ExplainRequest({0}, 100), &running_handle);
  gate.AwaitArrivals(1);
  const auto waiting = test.Submit(ExplainRequest({0}, 100), &waiting_handle);
  Request late = ExplainRequest({0}, 100);
  late.deadline = test.clock.Now() + absl::Seconds(5);
  const auto past = test.Submit(late);
  test.engine->Cancel(running_handle);
  test.engine->Cancel(waiting_handle);
  test.clock.Advance(absl::Seconds(6));
  gate.OpenForGood();
  for (const auto& sink : {running, waiting, past}) sink->Await();
  EXPECT_EQ(running->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->num_starts(), 0);
  EXPECT_EQ(past->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
}

}  // namespace
}  // namespace chorus
