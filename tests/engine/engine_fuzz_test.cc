// Same request, same tokens, whatever else the engine does: fuzzed against the reference.

#include <algorithm>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

// Answers as token ids by generation, caller's order.
std::vector<std::vector<int32_t>> AnswersOf(const Request& request, const RecordingSink& sink) {
  const FinishSummary summary = sink.summary();
  if (summary.prompts.empty()) return {summary.answer.token_ids};
  std::vector<std::vector<int32_t>> answers;
  for (const Answer& answer : summary.prompts) answers.push_back(answer.token_ids);
  return answers;
}

// The stream must say what the summary says.
void ExpectStreamMatchesSummary(const Request& request, const RecordingSink& sink) {
  const FinishSummary summary = sink.summary();
  if (request.fusion.method == FusionMethod::kPerPrompt) {
    for (size_t i = 0; i < summary.prompts.size(); ++i) {
      const auto index = static_cast<int32_t>(i);
      EXPECT_EQ(sink.StreamedIds(index), summary.prompts[i].token_ids);
      EXPECT_EQ(sink.StreamedText(index), summary.prompts[i].text);
    }
  } else {
    EXPECT_EQ(sink.StreamedIds(), summary.answer.token_ids);
    EXPECT_EQ(sink.StreamedText(), summary.answer.text);
  }
  EXPECT_EQ(summary.answer.text, TestTokenizer().Decode(summary.answer.token_ids, true));
}

// Often takes prefix and prompts of an earlier request, so that requests meet in the segment cache.
void ReuseSegments(std::mt19937& random, const std::vector<Request>& earlier, Request* request) {
  const Request& from = earlier[random() % earlier.size()];
  if (random() % 2 == 0) request->prefix = from.prefix;
  for (auto& prompt : request->prompts) {
    if (random() % 2 == 0) prompt = from.prompts[random() % from.prompts.size()];
  }
}

class EngineFuzzTest : public ::testing::TestWithParam<int> {};

TEST_P(EngineFuzzTest, EveryRequestGetsTheReferencesTokensInAnyCompany) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  EngineOptions options;
  options.max_step_rows = GetParam();
  options.max_running_requests = 1 + static_cast<int32_t>(random() % 40);
  options.eos_token_ids = {kTestEos, 7, 8, 9};
  options.prompt_share_rows = 1 + static_cast<int32_t>(random() % 20);
  if (random() % 3 == 0) options.max_idle_cache_tokens = static_cast<int32_t>(random() % 100);
  FakeModelOptions model;
  // The largest request fits alone; several preempt each other.
  model.num_kv_slots = 350 + static_cast<int32_t>(random() % (random() % 2 == 0 ? 100 : 2000));
  const int num_workers = 1 + static_cast<int>(random() % 2);
  TestEngine test(model, options, num_workers);

  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 40; ++i) {
    requests.push_back(random() % 3 == 0 ? RandomScoreRequest(random) : RandomRequest(random));
    ReuseSegments(random, requests, &requests.back());
    requests.back().priority = static_cast<int32_t>(random() % 3);
    sinks.push_back(test.Submit(requests.back()));
    if (random() % 4 == 0) sinks[random() % sinks.size()]->Await();  // arrivals in bursts
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(testing::Message()
                 << "request " << i << ", method " << static_cast<int>(requests[i].fusion.method));
    sinks[i]->Await();
    ASSERT_TRUE(sinks[i]->status().ok()) << sinks[i]->status();
    if (requests[i].score.has_value()) {
      ExpectReferenceScores(requests[i], model.vocab_size, sinks[i]->summary().scores);
      EXPECT_TRUE(sinks[i]->events().empty());
      continue;
    }
    EXPECT_EQ(AnswersOf(requests[i], *sinks[i]),
              ReferenceAnswers(requests[i], options.eos_token_ids, model.vocab_size));
    ExpectStreamMatchesSummary(requests[i], *sinks[i]);
  }
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
  const CountingObserver::Counts counts = test.observer.counts();
  EXPECT_EQ(counts.accepted, 40);
  EXPECT_EQ(counts.finished, 40);
  EXPECT_EQ(test.engine->num_waiting() + test.engine->num_running(), 0);
}

INSTANTIATE_TEST_SUITE_P(StepRows, EngineFuzzTest, ::testing::Values(1, 2, 3, 7, 16, 50, 512));

// The prompts in another order: the same fused tokens, logprobs and text.
TEST(EngineOrderTest, ParaphraseOrderDoesNotChangeTheStream) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  TestEngine test;
  for (int round = 0; round < 60; ++round) {
    Request request = RandomRequest(random);
    if (static_cast<int>(request.fusion.method) > static_cast<int>(FusionMethod::kLogitMax)) {
      request.fusion.method = FusionMethod::kAttention;
      request.fusion.weights.clear();
    }
    request.fusion.positions = PositionMode::kOverlapping;
    request.fusion.first_token = FirstToken::kFuseFirst;
    request.separator.clear();
    if (!request.suffix.empty() && request.fusion.method == FusionMethod::kAttention) {
      request.fusion.weights.clear();
    }
    std::vector<size_t> order(request.prompts.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    Request shuffled = request;
    for (size_t i = 0; i < order.size(); ++i) {
      shuffled.prompts[i] = request.prompts[order[i]];
      if (!request.fusion.weights.empty()) {
        shuffled.fusion.weights[i] = request.fusion.weights[order[i]];
      }
    }
    const auto a = test.Run(request);
    const auto b = test.Run(shuffled);
    ASSERT_EQ(a->StreamedIds(), b->StreamedIds()) << "round " << round;
    const auto events_a = a->events();
    const auto events_b = b->events();
    ASSERT_EQ(events_a.size(), events_b.size());
    for (size_t i = 0; i < events_a.size(); ++i) {
      EXPECT_EQ(events_a[i].logprobs, events_b[i].logprobs);  // bit for bit
      EXPECT_EQ(events_a[i].text, events_b[i].text);
    }
  }
}

}  // namespace
}  // namespace chorus
