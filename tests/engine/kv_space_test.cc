// What the segment cache and preemption promise: the same events, bit for bit, cold or warm,
// interrupted or not, and KV space that always suffices for what fits alone.

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

// Same tokens, logprobs and texts; chunks of PER_PROMPT may interleave otherwise.
void ExpectSameStream(const RecordingSink& a, const RecordingSink& b) {
  ASSERT_TRUE(a.status().ok() && b.status().ok()) << a.status() << b.status();
  for (int32_t index = -1; index < 6; ++index) {
    EXPECT_EQ(a.StreamedIds(index), b.StreamedIds(index));
    EXPECT_EQ(a.StreamedText(index), b.StreamedText(index));
  }
  const FinishSummary summary_a = a.summary(), summary_b = b.summary();
  EXPECT_EQ(summary_a.answer.mean_logprob, summary_b.answer.mean_logprob);
  ASSERT_EQ(summary_a.prompts.size(), summary_b.prompts.size());
  for (size_t i = 0; i < summary_a.prompts.size(); ++i) {
    EXPECT_EQ(summary_a.prompts[i].mean_logprob, summary_b.prompts[i].mean_logprob);
  }
}

TEST(SegmentCacheEngineTest, WarmIsColdWhateverTheMethod) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  int64_t num_cached = 0;
  for (int round = 0; round < 200; ++round) {
    const Request request = RandomRequest(random);
    TestEngine cold;
    TestEngine warm;
    // Another method, other positions, another order and a subset: what they share is found.
    Request other = request;
    other.fusion = FusionParams();
    other.fusion.method = static_cast<FusionMethod>(1 + random() % 7);
    other.fusion.positions = request.fusion.positions;
    std::shuffle(other.prompts.begin(), other.prompts.end(), random);
    if (other.prompts.size() > 1) other.prompts.pop_back();
    warm.Run(other);
    const auto a = cold.Run(request);
    const auto b = warm.Run(request);
    const auto again = warm.Run(request);
    ExpectSameStream(*a, *b);
    ExpectSameStream(*a, *again);
    num_cached += again->summary().cached_tokens;
    EXPECT_EQ(again->prompt().cached_tokens, again->summary().cached_tokens);
  }
  EXPECT_GT(num_cached, 0);
}

TEST(SegmentCacheEngineTest, SeenSegmentsAreNotComputedAgain) {
  TestEngine test;
  const auto rows_of = [&](const Request& request) {
    const int64_t before = test.observer.counts().prefill_rows;
    EXPECT_TRUE(test.Run(request)->status().ok());
    return test.observer.counts().prefill_rows - before;
  };
  Request request = SimpleRequest(FusionMethod::kAttention, 3);
  EXPECT_EQ(rows_of(request), 14);
  EXPECT_EQ(rows_of(request), 2) << "the suffix";
  std::reverse(request.prompts.begin(), request.prompts.end());
  EXPECT_EQ(rows_of(request), 2) << "any order";
  request.prompts.pop_back();
  EXPECT_EQ(rows_of(request), 2) << "any subset";
  request.prompts.push_back({70, 71});
  EXPECT_EQ(rows_of(request), 4) << "and one more";
  request.fusion.method = FusionMethod::kVote;
  EXPECT_EQ(rows_of(request), 3 * 2) << "another method: the suffix of each prompt";
  request.prefix = {11, 10, 12};
  EXPECT_EQ(rows_of(request), 3 + 7 + 3 * 2) << "another prefix: nothing is the same";
  const CountingObserver::Counts counts = test.observer.counts();
  EXPECT_EQ(counts.segment_misses, 4 + 0 + 0 + 0 + 1 + 0 + 4);
  EXPECT_EQ(counts.segment_hits, 0 + 4 + 4 + 3 + 3 + 4 + 0);
}

TEST(SegmentCacheEngineTest, SequentialSegmentsMoveToAnyPlace) {
  TestEngine test;
  Request request = SimpleRequest(FusionMethod::kAttention, 3);
  request.prefix.clear();
  request.fusion.positions = PositionMode::kSequential;
  test.Run(request);
  std::rotate(request.prompts.begin(), request.prompts.begin() + 1, request.prompts.end());
  const int64_t before = test.observer.counts().prefill_rows;
  const auto warm = test.Run(request);
  EXPECT_EQ(test.observer.counts().prefill_rows - before, 2);
  TestEngine cold;
  ExpectSameStream(*cold.Run(request), *warm);
  EXPECT_EQ(std::vector<std::vector<int32_t>>{warm->StreamedIds()},
            ReferenceAnswers(request, {}, FakeModelOptions().vocab_size));
}

TEST(SegmentCacheEngineTest, KeepsNothingIfNothingMayBeKept) {
  EngineOptions options;
  options.max_idle_cache_tokens = 0;
  TestEngine test({}, options);
  test.Run(SimpleRequest(FusionMethod::kAttention, 3));
  EXPECT_EQ(test.Run(SimpleRequest(FusionMethod::kAttention, 3))->summary().cached_tokens, 0);
}

TEST(SegmentCacheEngineTest, ACancelledReaderLeavesTheSegmentToOthers) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_step_rows = 5;
  TestEngine test(model, options);
  RequestHandle handle;
  const auto first = test.Submit(SimpleRequest(FusionMethod::kAttention, 3), &handle);
  gate.AwaitArrivals(1);
  const auto second = test.Submit(SimpleRequest(FusionMethod::kAttention, 3));
  gate.Open(1);
  gate.AwaitArrivals(2);  // both wait for the same segments, half of which are there
  test.engine->Cancel(handle);
  gate.OpenForGood();
  first->Await();
  second->Await();
  EXPECT_EQ(first->status().code(), absl::StatusCode::kCancelled);
  ASSERT_TRUE(second->status().ok());
  TestEngine alone;
  ExpectSameStream(*alone.Run(SimpleRequest(FusionMethod::kAttention, 3)), *second);
}

TEST(SegmentCacheEngineTest, AFailedStepLeavesNothingHalfComputed) {
  FakeModelOptions model;
  model.before_step = [](const StepPlan&, int64_t step) {
    return step % 3 == 1 ? absl::InternalError("a bad step") : absl::OkStatus();
  };
  EngineOptions options;
  options.max_step_rows = 6;
  TestEngine test(model, options);
  TestEngine alone;
  const auto expected = alone.Run(SimpleRequest(FusionMethod::kAttention, 1));
  int num_ok = 0;
  for (int i = 0; i < 30; ++i) {
    const auto sink = test.Run(SimpleRequest(FusionMethod::kAttention, 1));
    if (!sink->status().ok()) continue;
    ++num_ok;
    ExpectSameStream(*expected, *sink);
  }
  EXPECT_GT(num_ok, 0);
}

TEST(PreemptionTest, RequestsThatDoNotFitTogetherAllFinishToTheSameTokens) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  int num_preemptions = 0;
  for (int round = 0; round < 20; ++round) {
    FakeModelOptions model;
    model.num_kv_slots = 150;
    EngineOptions options;
    options.max_step_rows = 1 + static_cast<int32_t>(random() % 40);
    TestEngine test(model, options);
    TestEngine roomy;
    std::vector<Request> requests;
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 12; ++i) {
      Request request = SimpleRequest(static_cast<FusionMethod>(1 + random() % 7), 30);
      request.prompts = {RandomTokens(random, 5), RandomTokens(random, 5)};
      if (random() % 2 == 0) request.prefix.clear();
      if (random() % 2 == 0) request.suffix.clear();
      if (random() % 2 == 0) request.fusion.positions = PositionMode::kSequential;
      request.sampling.temperature = 0.8f;
      request.sampling.seed = random();
      requests.push_back(request);
      sinks.push_back(test.Submit(request));
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      sinks[i]->Await();
      ExpectSameStream(*roomy.Run(requests[i]), *sinks[i]);
    }
    num_preemptions += test.observer.counts().preemptions;
    EXPECT_EQ(test.observer.counts().finished, 12);
  }
  EXPECT_GT(num_preemptions, 20);
}

TEST(PreemptionTest, TheLeastUrgentLosesItsSpace) {
  FakeModelOptions model;
  model.num_kv_slots = 100;
  Gate gate;
  model.before_step = gate.Hook();
  TestEngine test(model);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const int priority : {0, 5, 0}) {
    Request request = SimpleRequest(FusionMethod::kAttention, 60);
    request.id = absl::StrCat(sinks.size());
    request.priority = priority;
    request.prompts = {{static_cast<int32_t>(20 + sinks.size())}};
    sinks.push_back(test.Submit(request));
    if (sinks.size() == 1) gate.AwaitArrivals(1);
  }
  gate.OpenForGood();
  for (const auto& sink : sinks) sink->Await();
  EXPECT_GT(test.observer.counts().preemptions, 0);
  EXPECT_THAT(test.observer.counts().finish_order, ::testing::ElementsAre("1", "0", "2"));
  // The most urgent one was never interrupted: a step for each token.
  EXPECT_EQ(sinks[1]->summary().model_steps, 60);
  EXPECT_GT(sinks[2]->summary().model_steps, 60);
}

TEST(PreemptionTest, APausedRequestGivesWayAndGoesOnLater) {
  FakeModelOptions model;
  model.num_kv_slots = 60;
  TestEngine test(model);
  Request request = SimpleRequest(FusionMethod::kAttention, 40);
  auto slow = std::make_shared<RecordingSink>();
  slow->wants_more = false;
  ASSERT_TRUE(test.engine->Submit(request, slow).ok());
  request.prompts[0] = {90, 91, 92};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(test.Run(request)->status().ok());
  slow->wants_more = true;
  slow->Await();
  TestEngine alone;
  ExpectSameStream(*alone.Run(SimpleRequest(FusionMethod::kAttention, 40)), *slow);
}

TEST(PreemptionTest, PausedRequestsTakeNobodysPlaceInTheBatch) {
  EngineOptions options;
  options.max_running_requests = 2;
  TestEngine test({}, options);
  std::vector<std::shared_ptr<RecordingSink>> slow;
  for (int i = 0; i < 5; ++i) {
    slow.push_back(std::make_shared<RecordingSink>());
    slow.back()->wants_more = false;
    ASSERT_TRUE(test.engine->Submit(SimpleRequest(FusionMethod::kVote, 5), slow.back()).ok());
  }
  EXPECT_TRUE(test.Run(SimpleRequest(FusionMethod::kVote, 5))->status().ok());
  for (const auto& sink : slow) sink->wants_more = true;
  for (const auto& sink : slow) sink->Await();
}

TEST(KvUseTest, IsReportedWhileTheStepRunsAndWhenTheRequestHasEnded) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  TestEngine test(model);
  Request request = SimpleRequest(FusionMethod::kAttention, 2);
  const auto sink = test.Submit(request);
  gate.AwaitArrivals(1);
  EXPECT_EQ(test.observer.counts().reported_kv_slots_used, 14) << "the first step's rows";
  gate.OpenForGood();
  sink->Await();
  test.engine.reset();  // the worker has gone round once more
  EXPECT_EQ(test.observer.counts().reported_kv_slots_used, 0);
}

TEST(AdmissionTest, AReaderThatTakesNothingForTooLongEndsItsRequest) {
  EngineOptions options;
  options.max_reader_stall = absl::Seconds(10);
  TestEngine test({}, options);
  auto stalled = std::make_shared<RecordingSink>();
  stalled->wants_more = false;
  ASSERT_TRUE(test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 5), stalled).ok());
  while (test.engine->num_running() == 0) absl::SleepFor(absl::Milliseconds(1));
  // The pause is seen in the turn after the start: time passes until it is.
  while (!stalled->ended()) {
    test.clock.Advance(absl::Seconds(6));
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(stalled->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(stalled->status().message()), ::testing::HasSubstr("reader"));
}

TEST(AdmissionTest, WhatHasWaitedTooLongEndsBeforeAnyCompute) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_running_requests = 1;
  options.max_queue_delay = absl::Seconds(10);
  TestEngine test(model, options);
  const auto running = test.Submit(SimpleRequest(FusionMethod::kAttention, 5));
  gate.AwaitArrivals(1);
  const auto early = test.Submit(SimpleRequest(FusionMethod::kAttention, 5));
  const auto second = test.Submit(SimpleRequest(FusionMethod::kAttention, 5));
  test.clock.Advance(absl::Seconds(11));
  const auto late = test.Submit(SimpleRequest(FusionMethod::kAttention, 5));
  gate.OpenForGood();
  for (const auto& sink : {running, early, second, late}) sink->Await();
  EXPECT_TRUE(running->status().ok()) << "what runs goes on";
  EXPECT_TRUE(late->status().ok());
  for (const auto& sink : {early, second}) {
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(sink->summary().model_steps, 0);
    EXPECT_EQ(sink->num_starts(), 0);
  }
}

TEST(AdmissionTest, ADeadlineThatNoRateSeenCanMeetEndsBeforeAnyCompute) {
  FakeModelOptions model;
  TestEngine* engine = nullptr;
  model.before_step = [&](const StepPlan& plan, int64_t) {
    engine->clock.Advance(absl::Milliseconds(10) * plan.num_rows());
    return absl::OkStatus();
  };
  TestEngine test(model);
  engine = &test;
  Request request = SimpleRequest(FusionMethod::kAttention, 2);
  EXPECT_TRUE(test.Run(request)->status().ok());  // 100 rows a second are seen
  const int64_t steps = test.observer.counts().steps;
  request.prompts = {std::vector<int32_t>(100, 33)};
  request.deadline = test.clock.Now() + absl::Milliseconds(500);
  const auto hopeless = test.Run(request);
  EXPECT_EQ(hopeless->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(test.observer.counts().steps, steps);
  request.deadline = test.clock.Now() + absl::Milliseconds(1500);
  EXPECT_TRUE(test.Run(request)->status().ok());
  request.deadline = test.clock.Now() + absl::Milliseconds(100);
  EXPECT_TRUE(test.Run(request)->status().ok()) << "all but the suffix is in the cache";
}

TEST(AdmissionTest, QueueIsBoundedByTokensToo) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_running_requests = 1;
  options.max_queued_tokens = 40;
  TestEngine test(model, options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kAttention, 2)));  // 16 tokens
  gate.AwaitArrivals(1);
  for (int i = 0; i < 2; ++i) {
    sinks.push_back(test.Submit(SimpleRequest(FusionMethod::kAttention, 2)));
  }
  const auto refused = test.engine->Submit(SimpleRequest(FusionMethod::kAttention, 2),
                                           std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  gate.OpenForGood();
  for (const auto& sink : sinks) sink->Await();
}

TEST(PlacementTest, GoesWhereItsSegmentsAre) {
  FakeModelOptions model;
  Gate gate;
  model.before_step = gate.Hook();
  TestEngine test(model, {}, /*num_workers=*/2);
  const auto request = [](int32_t first, int32_t length) {
    Request r = SimpleRequest(FusionMethod::kAttention, 1);
    r.prefix.clear();
    r.prompts = {std::vector<int32_t>(length, first)};
    return r;
  };
  const auto a = test.Submit(request(20, 100));
  const auto b = test.Submit(request(21, 100));
  const auto a_again = test.Submit(request(20, 100));
  const auto b_again = test.Submit(request(21, 100));
  gate.OpenForGood();
  for (const auto& sink : {a, b, a_again, b_again}) sink->Await();
  EXPECT_NE(a->prompt().worker, b->prompt().worker);
  EXPECT_EQ(a->prompt().worker, a_again->prompt().worker);
  EXPECT_EQ(b->prompt().worker, b_again->prompt().worker);
}

}  // namespace
}  // namespace chorus
