// Score requests: what continuations score, what they cost, and how they end.

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "core/base/field_error.h"
#include "core/engine/request_validation.h"
#include "tests/engine/engine_test_support.h"

namespace chorus {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int32_t kVocabSize = 300;  // FakeModelOptions' own

constexpr FusionMethod kAllMethods[] = {
    FusionMethod::kAttention, FusionMethod::kLogitMean, FusionMethod::kProbMean,
    FusionMethod::kProbMax,   FusionMethod::kLogitMax,  FusionMethod::kPerPrompt,
    FusionMethod::kVote};

Request ScoreRequest(FusionMethod method, std::vector<std::vector<int32_t>> continuations) {
  Request request = SimpleRequest(method, 1);
  request.score.emplace().continuations = std::move(continuations);
  return request;
}

std::vector<int32_t> Range(int32_t begin, int32_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

TEST(ScoreTest, EveryMethodScoresAsTheReference) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  TestEngine test;
  for (int round = 0; round < 200; ++round) {
    Request request = RandomScoreRequest(random);
    SCOPED_TRACE(testing::Message() << "round " << round << ", method "
                                    << static_cast<int>(request.fusion.method));
    const auto sink = test.Run(request);
    ASSERT_TRUE(sink->status().ok()) << sink->status();
    ExpectReferenceScores(request, kVocabSize, sink->summary().scores);
    EXPECT_THAT(sink->events(), IsEmpty());
  }
}

// The greedy answer of Generate, scored: the very logprobs, and each token is the most likely.
TEST(ScoreTest, AGreedyAnswerHasTheLogprobsOfGenerateBitForBit) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  TestEngine test;
  for (int round = 0; round < 100; ++round) {
    Request request = RandomRequest(random);
    if (request.fusion.method >= FusionMethod::kPerPrompt) continue;
    request.sampling = SamplingParams();
    request.response = ResponseParams();
    request.stopping = StoppingParams{.max_new_tokens = 9, .ignore_eos = true};
    const auto generated = test.Run(request);
    std::vector<float> logprobs;
    for (const TokenEvent& event : generated->events()) {
      logprobs.insert(logprobs.end(), event.logprobs.begin(), event.logprobs.end());
    }
    const std::vector<int32_t> answer = generated->StreamedIds();
    std::vector<int32_t> changed = answer;
    changed[4] = (changed[4] + 1) % kVocabSize;
    request.score.emplace().continuations = {changed, answer};
    const FinishSummary summary = test.Run(request)->summary();
    ASSERT_THAT(summary.scores, SizeIs(2));
    EXPECT_EQ(summary.scores[1].token_logprobs, logprobs);
    EXPECT_TRUE(summary.scores[1].is_greedy);
    EXPECT_EQ(summary.scores[1].greedy_token_ids, answer);
    EXPECT_FALSE(summary.scores[0].is_greedy);
    EXPECT_LT(summary.scores[0].token_logprobs[4], logprobs[4]);
  }
}

TEST(ScoreTest, ShortContinuationsCostOneStepWithTheirPrompt) {
  for (const FusionMethod method : kAllMethods) {
    TestEngine test;
    const auto sink = test.Run(
        ScoreRequest(method, {{30, 31, 32}, {40, 41}, {50, 51, 52, 53}, {60}}));
    ASSERT_TRUE(sink->status().ok()) << sink->status();
    EXPECT_EQ(sink->summary().model_steps, 1) << static_cast<int>(method);
    EXPECT_EQ(sink->summary().scored_tokens, 10);
    EXPECT_EQ(sink->summary().generated_tokens, 0);
  }
}

// The prompt's rows once, and of each continuation all but the last token, in every sequence.
TEST(ScoreTest, ThePromptIsReadOnceForAllContinuations) {
  TestEngine test;
  Request request = ScoreRequest(FusionMethod::kLogitMean, {{30, 31, 32}, {40, 41}, {60}});
  const auto num_prompts = static_cast<int64_t>(request.prompts.size());
  const auto sink = test.Run(request);
  EXPECT_EQ(test.observer.counts().rows, sink->summary().prompt_tokens + num_prompts * (2 + 1 + 0));
}

TEST(ScoreTest, PromptLogprobsCostAttentionItsCompanionsAndNothingElse) {
  const auto rows_of = [](FusionMethod method, bool prompt_logprobs, size_t num_prompts) {
    TestEngine test;
    Request request = ScoreRequest(method, {{30, 31, 32}});
    request.prompts.resize(num_prompts);
    request.score->prompt_logprobs = prompt_logprobs;
    const auto sink = test.Run(request);
    EXPECT_THAT(sink->summary().scores[0].prompt_logprobs,
                SizeIs(prompt_logprobs ? num_prompts : 0));
    return test.observer.counts().rows;
  };
  for (const FusionMethod method : kAllMethods) {
    const int64_t more = rows_of(method, true, 2) - rows_of(method, false, 2);
    EXPECT_EQ(more > 0, method == FusionMethod::kAttention);
    // A single prompt is its own fused sequence.
    EXPECT_EQ(rows_of(method, true, 1), rows_of(method, false, 1));
  }
}

// No step holds more choices than rows may run, whatever the continuation's length; and the scores
// are those of one large step.
TEST(ScoreTest, ALongContinuationIsReadInPiecesToTheSameBits) {
  for (const FusionMethod method : kAllMethods) {
    SCOPED_TRACE(static_cast<int>(method));
    const Request request = ScoreRequest(method, {Range(5, 100), {30, 31}, Range(50, 41)});
    size_t most_choices = 0;
    FakeModelOptions model;
    model.before_step = [&](const StepPlan& plan, int64_t) {
      most_choices = std::max(most_choices, plan.choices.size());
      return absl::OkStatus();
    };
    EngineOptions options;
    options.max_step_rows = 12;
    TestEngine pieces(model, options);
    options.max_step_rows = 100000;
    TestEngine whole({}, options);
    const FinishSummary small = pieces.Run(request)->summary();
    const FinishSummary large = whole.Run(request)->summary();
    EXPECT_LE(most_choices, 12u);
    EXPECT_GT(small.model_steps, 10);
    EXPECT_EQ(large.model_steps, 1);
    ASSERT_THAT(small.scores, SizeIs(3));
    for (size_t i = 0; i < small.scores.size(); ++i) {
      EXPECT_EQ(small.scores[i].token_logprobs, large.scores[i].token_logprobs);
      EXPECT_EQ(small.scores[i].prompt_logprobs, large.scores[i].prompt_logprobs);
      EXPECT_EQ(small.scores[i].logprob, large.scores[i].logprob);
    }
  }
}

// One row of each of a token's sequences runs together, even where max_step_rows holds fewer.
TEST(ScoreTest, MorePromptsThanRowsOfAStepStillEnd) {
  EngineOptions options;
  options.max_step_rows = 3;
  TestEngine test({}, options);
  Request request = ScoreRequest(FusionMethod::kProbMean, {{30, 31, 32}, {33, 34}});
  for (int32_t i = 0; i < 20; ++i) request.prompts.push_back({100 + i, 7});
  const auto sink = test.Run(request);
  ASSERT_TRUE(sink->status().ok()) << sink->status();
  ExpectReferenceScores(request, kVocabSize, sink->summary().scores);
}

TEST(ScoreTest, TheMixtureDoesNotDependOnTheOrderOfPrompts) {
  for (const FusionMethod method : {FusionMethod::kPerPrompt, FusionMethod::kVote}) {
    TestEngine test;
    Request request = ScoreRequest(method, {{30, 31, 32}, {40}});
    request.prompts = {{10, 11}, {12}, {13, 14, 15}, {16}, {17, 18}};
    Request turned = request;
    std::rotate(turned.prompts.begin(), turned.prompts.begin() + 2, turned.prompts.end());
    const FinishSummary a = test.Run(request)->summary(), b = test.Run(turned)->summary();
    for (size_t i = 0; i < a.scores.size(); ++i) {
      EXPECT_EQ(a.scores[i].logprob, b.scores[i].logprob);
      EXPECT_EQ(a.scores[i].token_logprobs, b.scores[i].token_logprobs);
      std::vector<double> of_prompts = a.scores[i].prompt_logprobs;
      std::rotate(of_prompts.begin(), of_prompts.begin() + 2, of_prompts.end());
      EXPECT_EQ(of_prompts, b.scores[i].prompt_logprobs);
    }
  }
}

// Several large requests in little KV space: some lose theirs, at any point, and read again.
TEST(ScoreTest, PreemptedRequestsScoreTheSame) {
  FakeModelOptions model;
  model.num_kv_slots = 420;
  EngineOptions options;
  options.max_step_rows = 16;
  options.max_idle_cache_tokens = 0;
  TestEngine test(model, options);
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int32_t i = 0; i < 12; ++i) {
    const FusionMethod method = kAllMethods[i % 7];
    Request request = ScoreRequest(method, {Range(10 + i, 25), Range(60, 9), {5}});
    if (i % 3 == 2) {  // they grow, and push the others out
      request = SimpleRequest(method, 60);
      request.stopping.ignore_eos = true;
      request.priority = 1;
    }
    requests.push_back(request);
    sinks.push_back(test.Submit(request));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    sinks[i]->Await();
    ASSERT_TRUE(sinks[i]->status().ok()) << sinks[i]->status();
    if (requests[i].score.has_value()) {
      ExpectReferenceScores(requests[i], kVocabSize, sinks[i]->summary().scores);
    }
  }
  EXPECT_GT(test.observer.counts().preemptions, 0);
  EXPECT_TRUE(test.engine->Drain(absl::InfiniteDuration()));
}

TEST(ScoreTest, ACancelledRequestEndsAtTheNextStep) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_step_rows = 8;
  TestEngine test(model, options);
  RequestHandle handle;
  const auto sink = test.Submit(ScoreRequest(FusionMethod::kAttention, {Range(5, 200)}), &handle);
  gate.Open(4);
  gate.AwaitArrivals(5);
  test.engine->Cancel(handle);
  gate.OpenForGood();
  sink->Await();
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(sink->summary().scores, IsEmpty());
  EXPECT_LE(sink->summary().model_steps, 6);
  EXPECT_EQ(test.observer.counts().outcomes.at(Outcome::kCancelled), 1);
}

TEST(ScoreTest, ADeadlineEndsIt) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  EngineOptions options;
  options.max_step_rows = 8;
  TestEngine test(model, options);
  Request request = ScoreRequest(FusionMethod::kLogitMax, {Range(5, 200)});
  request.deadline = test.clock.Now() + absl::Seconds(1);
  const auto sink = test.Submit(request);
  gate.AwaitArrivals(1);
  test.clock.Advance(absl::Seconds(2));
  gate.OpenForGood();
  sink->Await();
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kDeadlineExceeded);
}

// A choice that fails ends its request, wherever it stands, and no other one.
TEST(ScoreTest, AFailedChoiceEndsTheRequestOnce) {
  for (const int64_t failing : {0, 1, 3}) {
    FakeModelOptions model;
    int64_t num_choices = 0;
    model.choice_status = [&](const TokenChoice& choice) {
      if (choice.sampling->seed != 7) return absl::OkStatus();
      return num_choices++ == failing ? absl::InternalError("not finite") : absl::OkStatus();
    };
    TestEngine test(model);
    Request request = ScoreRequest(FusionMethod::kAttention, {{30, 31, 32, 33}, {40, 41}});
    const auto good = test.Submit(request);
    request.sampling.seed = 7;
    EXPECT_EQ(test.Run(request)->status().code(), absl::StatusCode::kInternal);
    good->Await();
    EXPECT_TRUE(good->status().ok());
    EXPECT_EQ(test.observer.counts().finished, 2);
  }
}

TEST(ScoreTest, ItTakesPartInStepsBesideAnswers) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestEngine test(model);
  Request answer = SimpleRequest(FusionMethod::kAttention, 40);
  answer.stopping.ignore_eos = true;
  const auto stream = test.Submit(answer);
  gate.Open(3);
  gate.AwaitArrivals(4);
  const auto scored = test.Submit(ScoreRequest(FusionMethod::kProbMax, {{30, 31}, {40, 41, 42}}));
  gate.OpenForGood();
  scored->Await();
  stream->Await();
  EXPECT_TRUE(scored->status().ok());
  // All steps of the scoring request were steps of the stream too.
  EXPECT_EQ(test.observer.counts().steps, stream->summary().model_steps);
}

struct Refusal {
  const char* name;
  std::string field;
  std::string says;
  void (*change)(Request* request);
};

TEST(ScoreTest, RefusalsNameTheContinuationTheValueAndTheLimit) {
  const Refusal refusals[] = {
      {"none", "continuations", "0 continuations", [](Request* r) { r->score->continuations = {}; }},
      {"too many", "continuations", "1 to 256",
       [](Request* r) { r->score->continuations.assign(257, {5}); }},
      {"empty", "continuations[1]", "0 tokens",
       [](Request* r) { r->score->continuations = {{5}, {}}; }},
      {"unknown id", "continuations[0].tokens.token_ids[1]", "[0, 300)",
       [](Request* r) { r->score->continuations = {{5, 300}}; }},
      {"longer than the context", "continuations[1]", "context of 4096",
       [](Request* r) {
         r->score->continuations = {{5}, std::vector<int32_t>(4090, 5)};
       }},
      {"too many tokens in all", "continuations[3]", "must be at most 20000",
       [](Request* r) { r->score->continuations.assign(4, std::vector<int32_t>(1500, 5)); }},
      {"explained", "layers", "defaults",
       [](Request* r) { r->explain = {.layers = {0}, .heads = {0}, .steps = {0}}; }},
      {"sampled", "sampling", "defaults", [](Request* r) { r->sampling.temperature = 1.0f; }},
  };
  for (const Refusal& one : refusals) {
    SCOPED_TRACE(one.name);
    FakeModelOptions model;
    model.num_kv_slots = 100000;
    EngineOptions options;
    options.max_request_tokens = 20000;
    TestEngine test(model, options);
    Request request = ScoreRequest(FusionMethod::kAttention, {{5, 6}});
    one.change(&request);
    const auto refused = test.engine->Submit(request, std::make_shared<RecordingSink>());
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(FieldOf(refused.status()), one.field);
    EXPECT_TRUE(absl::StrContains(refused.status().message(), one.says)) << refused.status();
  }
}

}  // namespace
}  // namespace chorus
