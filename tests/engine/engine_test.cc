#include "core/engine/engine.h"

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/field_error.h"
#include "core/base/status_macros.h"
#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr FusionMethod kAllMethods[] = {FusionMethod::kAttention, FusionMethod::kLogitMean,
                                        FusionMethod::kProbMean,  FusionMethod::kProbMax,
                                        FusionMethod::kLogitMax,  FusionMethod::kPerPrompt,
                                        FusionMethod::kVote};

// The next request finds every slot free but its own.
void ExpectNoSlotLeaked(TestEngine& test) {
  Request request;
  request.prompts = {{20, 21, 22}};
  request.stopping.max_new_tokens = 2;
  const auto sink = test.Run(request);
  EXPECT_TRUE(sink->status().ok()) << sink->status();
  EXPECT_EQ(test.observer.counts().last_kv_slots_used, 4);  // the last token needs none
}

std::unique_ptr<Gate> GateOf(FakeModelOptions* model) {
  auto gate = std::make_unique<Gate>();
  model->before_step = gate->Hook();
  return gate;
}

class EngineMethodTest : public ::testing::TestWithParam<FusionMethod> {};

TEST_P(EngineMethodTest, SummaryCountsWhatWasReadAndSaid) {
  TestEngine test;
  const auto sink = test.Run(SimpleRequest(GetParam(), 4));
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  const bool attention = GetParam() == FusionMethod::kAttention;
  const bool by_prompt =
      GetParam() == FusionMethod::kPerPrompt || GetParam() == FusionMethod::kVote;
  EXPECT_THAT(sink->prompt().segment_tokens, ElementsAre(4, 2, 3));
  EXPECT_EQ(sink->prompt().original_length, attention ? 12 : 7);
  EXPECT_EQ(sink->prompt().prompt_tokens, attention ? 14 : 3 + 9 + 3 * 2);
  const FinishSummary summary = sink->summary();
  EXPECT_EQ(summary.prompt_tokens, sink->prompt().prompt_tokens);
  EXPECT_EQ(summary.generated_tokens, by_prompt ? 12 : 4);
  EXPECT_EQ(summary.model_steps, 4);
  EXPECT_EQ(summary.prompts.size(), by_prompt ? 3u : 0u);
  EXPECT_EQ(summary.answer.reason, FinishReason::kLength);
  EXPECT_LT(summary.answer.mean_logprob, 0.0);
  // Each prompt row runs once, and no row is run for a last token.
  const CountingObserver::Counts counts = test.observer.counts();
  EXPECT_EQ(counts.prefill_rows, summary.prompt_tokens);
  EXPECT_EQ(counts.rows, summary.prompt_tokens + 3 * (attention ? 1 : 3));
  ExpectNoSlotLeaked(test);
}

TEST_P(EngineMethodTest, CancelEndsTheRequestAtEveryStage) {
  for (int num_steps = 0; num_steps < 8; ++num_steps) {
    FakeModelOptions model;
    const auto gate = GateOf(&model);
    EngineOptions options;
    options.max_step_rows = 8;  // the prompt takes several steps
    TestEngine test(model, options);
    RequestHandle handle;
    const auto sink = test.Submit(SimpleRequest(GetParam(), 100), &handle);
    gate->Open(num_steps);
    gate->AwaitArrivals(num_steps + 1);
    test.engine->Cancel(handle);
    gate->OpenForGood();
    sink->Await();
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(sink->summary().model_steps, num_steps + 1);
    ExpectNoSlotLeaked(test);
    EXPECT_EQ(test.observer.counts().outcomes[Outcome::kCancelled], 1);
  }
}

TEST_P(EngineMethodTest, FailedStepEndsItsRequestsOnly) {
  FakeModelOptions model;
  model.before_step = [](const StepPlan&, int64_t step) {
    return step == 2 ? absl::ResourceExhaustedError("out of memory") : absl::OkStatus();
  };
  TestEngine test(model);
  const auto failed = test.Run(SimpleRequest(GetParam(), 10));
  EXPECT_EQ(failed->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(failed->status().message(), "out of memory"));
  EXPECT_EQ(failed->summary().generated_tokens, failed->summary().prompts.empty() ? 2 : 6);
  const auto next = test.Run(SimpleRequest(GetParam(), 10));
  EXPECT_TRUE(next->status().ok()) << next->status();
  ExpectNoSlotLeaked(test);
}

TEST_P(EngineMethodTest, DestructorEndsWhatRuns) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  EngineOptions options;
  options.max_running_requests = 1;
  auto test = std::make_unique<TestEngine>(model, options);
  const auto running = test->Submit(SimpleRequest(GetParam(), 500));
  const auto waiting = test->Submit(SimpleRequest(GetParam(), 500));
  gate->Open(3);
  gate->AwaitArrivals(4);
  gate->OpenForGood();
  test->engine.reset();
  EXPECT_EQ(running->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting->num_starts(), 0);
  EXPECT_EQ(test->observer.counts().finished, 2);
}

INSTANTIATE_TEST_SUITE_P(Methods, EngineMethodTest, ::testing::ValuesIn(kAllMethods));

TEST(EngineTest, OneStepServesAllRunningRequests) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  TestEngine test(model);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kAttention, 2)));
  gate->AwaitArrivals(1);  // the first has a step of its own; the others meet in the next
  for (int i = 0; i < 9; ++i) sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kVote, 2)));
  gate->OpenForGood();
  for (const auto& sink : sinks) sink->Await();
  EXPECT_EQ(test.observer.counts().steps, 3);
}

TEST(EngineTest, SharedPrefixIsStoredOnce) {
  FakeModelOptions model;
  model.num_kv_slots = 3 + (4 + 2 + 3) + 3 * 2 + 3 * 4;
  TestEngine test(model);
  EXPECT_TRUE(test.Run(SimpleRequest(FusionMethod::kLogitMean, 4))->status().ok());
  // The last tokens need no slots.
  EXPECT_EQ(test.observer.counts().max_kv_slots_used, model.num_kv_slots - 3);
  auto sink = std::make_shared<RecordingSink>();
  const auto refused = test.engine->Submit(SimpleRequest(FusionMethod::kLogitMean, 5), sink);
  EXPECT_EQ(FieldOf(refused.status()), "stopping.max_new_tokens");
  EXPECT_EQ(test.observer.counts().rejected[RejectReason::kTooLarge], 1);
}

TEST(EngineTest, RequestWaitsForSlotsAndNothingOvertakesIt) {
  FakeModelOptions model;
  model.num_kv_slots = 60;
  const auto gate = GateOf(&model);
  TestEngine test(model);
  const auto request = [](std::string id, int32_t prompt_tokens) {
    Request r = SimpleRequest(FusionMethod::kAttention, 2);
    r.id = id;
    r.prefix = std::vector<int32_t>(prompt_tokens, 10 + prompt_tokens);
    return r;
  };
  const auto a = test.Submit(request("a", 25));
  gate->AwaitArrivals(1);
  const auto b = test.Submit(request("b", 40));  // does not fit beside a
  const auto c = test.Submit(request("c", 1));   // would fit
  gate->OpenForGood();
  for (const auto& sink : {a, b, c}) sink->Await();
  EXPECT_THAT(test.observer.counts().start_order, ElementsAre("a", "b", "c"));
  EXPECT_EQ(test.observer.counts().preemptions, 0);
}

TEST(EngineTest, HigherPriorityStartsFirst) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  EngineOptions options;
  options.max_running_requests = 1;
  TestEngine test(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int priority : {0, 0, 5, -1, 5}) {
    Request request = SimpleRequest(FusionMethod::kAttention, 1);
    request.id = absl::StrCat(sinks.size());
    request.priority = priority;
    sinks.push_back(test.Submit(request));
    if (sinks.size() == 1) gate->AwaitArrivals(1);
  }
  gate->OpenForGood();
  for (const auto& sink : sinks) sink->Await();
  EXPECT_THAT(test.observer.counts().start_order, ElementsAre("0", "2", "4", "1", "3"));
}

TEST(EngineTest, FullQueueIsResourceExhausted) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  EngineOptions options;
  options.max_running_requests = 1;
  options.max_queued_requests = 2;
  TestEngine test(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kAttention, 1)));
  gate->AwaitArrivals(1);
  for (int i = 0; i < 2; ++i) {
    sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kAttention, 1)));
  }
  EXPECT_EQ(test.engine->num_waiting(), 2);
  EXPECT_EQ(test.engine->num_running(), 1);
  auto sink = std::make_shared<RecordingSink>();
  const auto refused = test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 1), sink);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(sink->ended());
  EXPECT_EQ(test.observer.counts().rejected[RejectReason::kQueueFull], 1);
  gate->OpenForGood();
  for (const auto& accepted : sinks) {
    accepted->Await();
    EXPECT_TRUE(accepted->status().ok());
  }
}

TEST(EngineTest, DeadlinePassesOnArrivalInTheQueueAndWhileRunning) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  EngineOptions options;
  options.max_running_requests = 1;
  TestEngine test(model, options);
  Request request = SimpleRequest(FusionMethod::kAttention, 100);
  request.deadline = test.clock.Now();
  auto sink = std::make_shared<RecordingSink>();
  EXPECT_EQ(test.engine->Submit(request, sink).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  request.deadline = test.clock.Now() + absl::Seconds(5);
  const auto running = test.Submit(request);
  gate->AwaitArrivals(1);
  const auto waiting = test.Submit(request);
  test.clock.Advance(absl::Seconds(6));
  gate->OpenForGood();
  running->Await();
  waiting->Await();
  EXPECT_EQ(running->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running->summary().generated_tokens, 1);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting->num_starts(), 0);
  EXPECT_EQ(waiting->summary().model_steps, 0);
  ExpectNoSlotLeaked(test);
}

TEST(EngineTest, SlowReaderPausesItsRequestAndNoOther) {
  TestEngine test;
  Request request = SimpleRequest(FusionMethod::kAttention, 50);
  auto slow = std::make_shared<RecordingSink>();
  slow->wants_more = false;
  ASSERT_TRUE(test.engine->Submit(request, slow).ok());
  const auto other = test.Run(request);
  EXPECT_TRUE(other->status().ok());
  EXPECT_THAT(slow->events(), IsEmpty());
  slow->wants_more = true;
  slow->Await();
  EXPECT_EQ(slow->StreamedIds(), other->StreamedIds());
}

TEST(EngineTest, PausedRequestEndsByItsDeadlineOrByCancel) {
  TestEngine test;
  Request request = SimpleRequest(FusionMethod::kPerPrompt, 50);
  request.deadline = test.clock.Now() + absl::Seconds(1);
  auto late = std::make_shared<RecordingSink>();
  late->wants_more = false;
  ASSERT_TRUE(test.engine->Submit(request, late).ok());
  test.clock.Advance(absl::Seconds(2));
  late->Await();
  EXPECT_EQ(late->status().code(), absl::StatusCode::kDeadlineExceeded);

  request.deadline = absl::InfiniteFuture();
  auto cancelled = std::make_shared<RecordingSink>();
  cancelled->wants_more = false;
  const auto handle = test.engine->Submit(request, cancelled);
  ASSERT_TRUE(handle.ok());
  test.engine->Cancel(*handle);
  cancelled->Await();
  EXPECT_EQ(cancelled->status().code(), absl::StatusCode::kCancelled);
  ExpectNoSlotLeaked(test);
}

TEST(EngineTest, DrainFinishesWhatRunsAndRefusesWhatComes) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  TestEngine test(model);
  const auto running = test.Submit(SimpleRequest(FusionMethod::kAttention, 5));
  gate->AwaitArrivals(1);
  EXPECT_FALSE(running->ended());
  gate->OpenForGood();
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
  EXPECT_TRUE(running->ended());
  EXPECT_TRUE(running->status().ok());
  auto sink = std::make_shared<RecordingSink>();
  EXPECT_EQ(test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 5), sink).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(test.observer.counts().rejected[RejectReason::kDraining], 1);
}

TEST(EngineTest, DrainEndsTheRestWithUnavailableAfterItsTimeout) {
  TestEngine test;
  std::vector<std::shared_ptr<RecordingSink>> paused;  // or not started yet
  for (int i = 0; i < 2; ++i) {
    paused.push_back(std::make_shared<RecordingSink>());
    paused.back()->wants_more = false;
    ASSERT_TRUE(test.engine->Submit(SimpleRequest(FusionMethod::kVote, 5), paused.back()).ok());
  }
  EXPECT_FALSE(test.engine->Drain(absl::ZeroDuration()));
  for (const auto& sink : paused) {
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(test.observer.counts().outcomes[Outcome::kUnavailable], 2);
}

TEST(EngineTest, SinkMaySubmitFromItsLastCall) {
  TestEngine test;
  auto second = std::make_shared<RecordingSink>();
  auto first = std::make_shared<RecordingSink>();
  first->on_finish = [&] {
    EXPECT_TRUE(test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 2), second).ok());
  };
  ASSERT_TRUE(test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 2), first).ok());
  second->Await();
  EXPECT_EQ(first->StreamedIds(), second->StreamedIds());
}

TEST(EngineTest, IsLiveUntilAStepTakesTooLong) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  TestEngine test(model);
  test.clock.Advance(absl::Hours(1));
  EXPECT_TRUE(test.engine->CheckLive(absl::Seconds(10)).ok());  // nothing to do
  const auto sink = test.Submit(SimpleRequest(FusionMethod::kAttention, 2));
  gate->AwaitArrivals(1);
  EXPECT_TRUE(test.engine->CheckLive(absl::Seconds(10)).ok());
  test.clock.Advance(absl::Seconds(11));
  EXPECT_EQ(test.engine->CheckLive(absl::Seconds(10)).message(),
            "worker 0: it has made no step for 11s");
  gate->OpenForGood();
  sink->Await();
  ASSERT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
  EXPECT_TRUE(test.engine->CheckLive(absl::Seconds(10)).ok());
}

absl::Status LoseDevice(const StepPlan&, int64_t step) {
  return step >= 2 ? absl::UnavailableError("the GPU is lost") : absl::OkStatus();
}

TEST(EngineTest, AWorkerWhoseDeviceIsLostEndsEverythingAndIsNotLive) {
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  model.before_step = [hook = model.before_step](const StepPlan& plan, int64_t step) {
    CHORUS_RETURN_IF_ERROR(hook(plan, step));
    return LoseDevice(plan, step);
  };
  EngineOptions options;
  options.max_running_requests = 1;
  TestEngine test(model, options);
  const auto running = test.Submit(SimpleRequest(FusionMethod::kAttention, 8));
  gate->AwaitArrivals(1);
  const auto waiting = test.Submit(SimpleRequest(FusionMethod::kVote, 8));
  gate->OpenForGood();
  for (const auto& sink : {running, waiting}) {
    sink->Await();
    EXPECT_EQ(sink->status(), absl::UnavailableError("the model step failed: the GPU is lost"));
  }
  EXPECT_EQ(test.engine->CheckLive(absl::InfiniteDuration()).message(),
            "worker 0: the model step failed: the GPU is lost");
  EXPECT_EQ(test.Run(SimpleRequest(FusionMethod::kAttention, 1))->status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(test.observer.counts().outcomes[Outcome::kUnavailable], 3);
  const int heartbeats = test.observer.counts().heartbeats;
  test.Run(SimpleRequest(FusionMethod::kAttention, 1));
  EXPECT_EQ(test.observer.counts().heartbeats, heartbeats);
}

TEST(EngineTest, RequestsGoToWorkersThatHaveTheirDevice) {
  FakeModelOptions lost;
  lost.before_step = LoseDevice;
  std::vector<std::unique_ptr<ModelRunner>> runners;
  runners.push_back(std::make_unique<FakeModelRunner>(lost));
  runners.push_back(std::make_unique<FakeModelRunner>(FakeModelOptions{}));
  CountingObserver observer;
  auto engine = Engine::Create({}, std::move(runners), &TestTokenizer(), &observer, Clock::Real());
  ASSERT_TRUE(engine.ok());
  int num_lost = 0;
  for (int i = 0; i < 10; ++i) {
    const auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE((*engine)->Submit(SimpleRequest(FusionMethod::kAttention, 8), sink).ok());
    sink->Await();
    num_lost += !sink->status().ok();
  }
  EXPECT_EQ(num_lost, 1);
}

TEST(EngineTest, PlacesOnTheWorkerWithTheFewestOutstandingRows) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  TestEngine test(model, {}, /*num_workers=*/2);
  const auto large = test.Submit(SimpleRequest(FusionMethod::kAttention, 100));
  const auto small = test.Submit(SimpleRequest(FusionMethod::kAttention, 1));
  const auto beside_small = test.Submit(SimpleRequest(FusionMethod::kAttention, 1));
  gate.OpenForGood();
  for (const auto& sink : {large, small, beside_small}) sink->Await();
  EXPECT_NE(large->prompt().worker, small->prompt().worker);
  EXPECT_EQ(small->prompt().worker, beside_small->prompt().worker);
}

TEST(EngineTest, FailedChoiceEndsItsRequestWithItsOwnStatus) {
  FakeModelOptions model;
  model.choice_status = [](const TokenChoice& choice) {
    return choice.sampling->seed == 13 && choice.draw_index == 1
               ? absl::InvalidArgumentError("no token is left to choose from")
               : absl::OkStatus();
  };
  TestEngine test(model);
  Request unlucky = SimpleRequest(FusionMethod::kLogitMean, 5);
  unlucky.sampling.seed = 13;
  const auto failed = test.Submit(unlucky);
  const auto other = test.Run(SimpleRequest(FusionMethod::kLogitMean, 5));
  failed->Await();
  EXPECT_EQ(failed->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(other->status().ok());
  EXPECT_EQ(test.observer.counts().outcomes[Outcome::kInvalidArgument], 1);
  ExpectNoSlotLeaked(test);
}

// A step of many runs out of memory because of one of them: that one ends, the others say what they
// would have said.
TEST(EngineTest, StepOutOfMemoryCostsOneRequest) {
  static constexpr int32_t kLargeToken = 299;
  FakeModelOptions model;
  const auto gate = GateOf(&model);
  model.before_step = [hook = model.before_step](const StepPlan& plan, int64_t step) {
    const absl::Status status = hook(plan, step);
    const std::vector<int32_t>& ids = plan.token_ids;
    return std::find(ids.begin(), ids.end(), kLargeToken) == ids.end()
               ? status
               : absl::ResourceExhaustedError("out of memory");
  };
  TestEngine test(model);
  const auto first = test.Submit(SimpleRequest(FusionMethod::kAttention, 8));
  gate->AwaitArrivals(1);
  Request large = SimpleRequest(FusionMethod::kAttention, 8);
  large.prompts.front().front() = kLargeToken;
  const auto failed = test.Submit(large);
  const auto other = test.Submit(SimpleRequest(FusionMethod::kLogitMean, 8));
  gate->OpenForGood();
  for (const auto& sink : {first, failed, other}) sink->Await();
  EXPECT_EQ(failed->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(first->status().ok()) << first->status();
  EXPECT_TRUE(other->status().ok()) << other->status();
  TestEngine alone;
  EXPECT_EQ(first->StreamedIds(),
            alone.Run(SimpleRequest(FusionMethod::kAttention, 8))->StreamedIds());
  EXPECT_EQ(other->StreamedIds(),
            alone.Run(SimpleRequest(FusionMethod::kLogitMean, 8))->StreamedIds());
  ExpectNoSlotLeaked(test);
}

TEST(EngineTest, RefusesOptionsThatCannotWork) {
  std::vector<std::unique_ptr<ModelRunner>> none;
  CountingObserver observer;
  EXPECT_EQ(Engine::Create({}, std::move(none), &TestTokenizer(), &observer, Clock::Real())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  std::vector<std::unique_ptr<ModelRunner>> one;
  one.push_back(std::make_unique<FakeModelRunner>(FakeModelOptions{}));
  EngineOptions options;
  options.max_step_rows = 0;
  EXPECT_EQ(Engine::Create(options, std::move(one), &TestTokenizer(), &observer, Clock::Real())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

// Cancels, deadlines, pauses, failing steps and refusals at random: every accepted request ends
// exactly once, and every slot comes back.
TEST(EngineTest, AccountsForEveryRequestWhateverHappens) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  FakeModelOptions model;
  model.num_kv_slots = 1000;
  model.before_step = [](const StepPlan&, int64_t step) {
    return step % 17 == 16 ? absl::InternalError("a bad step") : absl::OkStatus();
  };
  EngineOptions options;
  options.max_step_rows = 20;
  options.max_queued_requests = 20;
  TestEngine test(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<RequestHandle> handles;
  int num_refused = 0;
  for (int i = 0; i < 200; ++i) {
    Request request = RandomRequest(random);
    if (random() % 4 == 0) request.deadline = test.clock.Now() + absl::Seconds(random() % 20);
    auto sink = std::make_shared<RecordingSink>();
    sink->wants_more = random() % 4 != 0;
    const auto handle = test.engine->Submit(std::move(request), sink);
    if (handle.ok()) {
      sinks.push_back(sink);
      handles.push_back(*handle);
    } else {
      ++num_refused;
    }
    if (random() % 2 == 0) test.clock.Advance(absl::Seconds(1));
    if (sinks.empty()) continue;
    const size_t some = random() % sinks.size();
    if (random() % 3 == 0) test.engine->Cancel(handles[some]);
    if (random() % 3 != 0) sinks[some]->wants_more = true;
    if (random() % 8 == 0) {
      // A paused request keeps its slots, and another may wait for them: all readers catch up.
      for (const auto& sink : sinks) sink->wants_more = true;
      sinks[some]->Await();
    }
  }
  for (const auto& sink : sinks) sink->wants_more = true;
  for (const auto& sink : sinks) sink->Await();
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
  const CountingObserver::Counts counts = test.observer.counts();
  EXPECT_EQ(counts.accepted, static_cast<int>(sinks.size()));
  EXPECT_EQ(counts.finished, counts.accepted);
  int num_rejected = 0;
  for (const auto& [reason, num] : counts.rejected) num_rejected += num;
  EXPECT_EQ(num_rejected, num_refused);
  EXPECT_GE(counts.started, counts.first_tokens);
}

TEST(EngineTest, TheModelIsThatOfAllWorkers) {
  std::vector<std::unique_ptr<ModelRunner>> runners;
  for (const auto& [device, num_kv_slots] :
       {std::pair("cuda:0", 700), {"cuda:0", 700}, {"cuda:1", 600}, {"cuda:1", 900}}) {
    FakeModelOptions model;
    model.device = device;
    model.num_kv_slots = num_kv_slots;
    runners.push_back(std::make_unique<FakeModelRunner>(model));
  }
  EngineObserver observer;
  const auto engine =
      Engine::Create({}, std::move(runners), &TestTokenizer(), &observer, Clock::Real());
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->model_info().device, "cuda:0,cuda:1");
  EXPECT_EQ((*engine)->model_info().num_kv_slots, 600);
}

}  // namespace
}  // namespace chorus
