// Score through real gRPC, on a fake model.

#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

#include "tests/engine/engine_test_support.h"
#include "tests/server/server_test_support.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

void AddIds(v1::ScoreRequest* request, const std::vector<int32_t>& ids) {
  request->add_continuations()->mutable_tokens()->mutable_token_ids()->Assign(ids.begin(),
                                                                              ids.end());
}

// The prompt of SimpleGenerateRequest, and two continuations.
v1::ScoreRequest SimpleScoreRequest(v1::FusionMethod method) {
  v1::ScoreRequest request;
  *request.mutable_prompt() = SimpleGenerateRequest(1).prompt();
  request.mutable_fusion()->set_method(method);
  request.add_continuations()->set_text(" Paris");
  AddIds(&request, {30, 31, 32});
  return request;
}

struct Scored {
  grpc::Status status;
  v1::ScoreResponse response;
};

Scored Score(TestServer& test, const v1::ScoreRequest& request) {
  Scored scored;
  grpc::ClientContext context;
  scored.status = test.stub().Score(&context, request, &scored.response);
  return scored;
}

TEST(ScoreCallTest, ScoresTextsAndIdsByEveryMethod) {
  TestServer test;
  const std::vector<int32_t> paris = TinyTokenizer().Encode(" Paris", SpecialTokens::kPlainText);
  const int num_prompts = 1 + SimpleGenerateRequest(1).prompt().text().paraphrases_size();
  for (int method = 1; method <= 7; ++method) {
    SCOPED_TRACE(method);
    v1::ScoreRequest request = SimpleScoreRequest(static_cast<v1::FusionMethod>(method));
    request.set_request_id("mine");
    const auto [status, response] = Score(test, request);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_THAT(response.scores(), SizeIs(2));
    EXPECT_THAT(response.scores(0).token_ids(), ElementsAreArray(paris));
    EXPECT_THAT(response.scores(1).token_ids(), ElementsAre(30, 31, 32));
    for (const v1::ContinuationScore& score : response.scores()) {
      EXPECT_THAT(score.token_logprobs(), SizeIs(score.token_ids_size()));
      EXPECT_THAT(score.prompt_logprobs(), SizeIs(num_prompts));
      EXPECT_EQ(score.greedy_token_ids_size(), method <= 5 ? score.token_ids_size() : 0);
      double sum = 0.0;
      for (const float logprob : score.token_logprobs()) sum += logprob;
      // The mixture's logprob is no sum of floats.
      EXPECT_NEAR(score.logprob(), sum, method <= 5 ? 0.0 : 1e-5);
      EXPECT_LT(score.logprob(), 0.0);
    }
    EXPECT_EQ(response.prompt_info().request_id(), "mine");
    EXPECT_EQ(response.prompt_info().segment_tokens_size(), num_prompts);
    EXPECT_EQ(response.usage().scored_tokens(), static_cast<int>(paris.size()) + 3);
    EXPECT_EQ(response.usage().generated_tokens(), 0);
    EXPECT_EQ(response.usage().prompt_tokens(), response.prompt_info().prompt_tokens());
    EXPECT_GT(response.timing().total_seconds(), 0.0);
    EXPECT_EQ(test.Metric("chorus_scored_tokens_total"), method * (paris.size() + 3.0));
  }
  EXPECT_EQ(test.Metric("chorus_requests_accepted_total"), 7);
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=ok"), 7);
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "method=vote"), 1);
  EXPECT_EQ(test.Metric("chorus_generated_tokens_total"), 0);
  EXPECT_EQ(test.Metric("chorus_time_to_first_token_seconds"), 0);
}

TEST(ScoreCallTest, TheGreedyAnswerOfGenerateIsGreedyWithItsLogprobs) {
  TestServer test;
  v1::GenerateRequest ask = SimpleGenerateRequest(6);
  ask.mutable_stopping()->set_ignore_eos(true);
  const TestServer::Answer answer = test.Ask(ask);
  std::vector<float> logprobs;
  for (const v1::GenerateResponse& event : answer.events) {
    logprobs.insert(logprobs.end(), event.chunk().logprobs().begin(),
                    event.chunk().logprobs().end());
  }
  v1::ScoreRequest request;
  *request.mutable_prompt() = ask.prompt();
  AddIds(&request, {answer.finish().token_ids().begin(), answer.finish().token_ids().end()});
  request.set_prompt_logprobs(false);
  const auto [status, response] = Score(test, request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.scores(0).is_greedy());
  EXPECT_THAT(response.scores(0).token_logprobs(), ElementsAreArray(logprobs));
  EXPECT_THAT(response.scores(0).prompt_logprobs(), IsEmpty());
}

// Spellings of special tokens are plain text in a continuation, long texts take the pool's way, and
// there may be as many as the server says.
TEST(ScoreCallTest, ManyAndLongContinuations) {
  TestServer test;
  v1::ScoreRequest request = SimpleScoreRequest(v1::FUSION_METHOD_LOGIT_MEAN);
  request.clear_continuations();
  request.add_continuations()->set_text("<|im_end|>");
  request.add_continuations()->set_text(std::string(700, 'x'));
  while (request.continuations_size() < 256) {
    request.add_continuations()->set_text(absl::StrCat("answer ", request.continuations_size()));
  }
  const auto [status, response] = Score(test, request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_THAT(response.scores(), SizeIs(256));
  EXPECT_GT(response.scores(0).token_ids_size(), 1);
  for (const v1::ContinuationScore& score : response.scores()) {
    EXPECT_EQ(score.token_logprobs_size(), score.token_ids_size());
  }
  v1::GetModelInfoResponse info;
  grpc::ClientContext context;
  ASSERT_TRUE(test.stub().GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.max_continuations(), 256);
}

struct BadCase {
  std::string field;
  std::string says;
  void (*change)(v1::ScoreRequest* request);
};

TEST(ScoreCallTest, BadRequestsNameFieldValueAndLimit) {
  using R = v1::ScoreRequest*;
  const BadCase cases[] = {
      {"continuations", "0 continuations", [](R r) { r->clear_continuations(); }},
      {"continuations", "257 continuations",
       [](R r) {
         while (r->continuations_size() < 257) AddIds(r, {5});
       }},
      {"continuations[2]", "nothing", [](R r) { r->add_continuations(); }},
      {"continuations[2]", "0 tokens", [](R r) { r->add_continuations()->set_text(""); }},
      {"continuations[2]", "0 tokens", [](R r) { AddIds(r, {}); }},
      {"continuations[2].tokens.token_ids[1]", "[0, 300)",
       [](R r) {
         AddIds(r, {5, 300});
       }},
      {"continuations[2].tokens.token_ids[0]", "-1", [](R r) { AddIds(r, {-1}); }},
      {"continuations[2]", "must be within the model's context of 4096",
       [](R r) { AddIds(r, std::vector<int32_t>(4090, 5)); }},
      {"continuations[1]", "bytes of text in all",
       [](R r) { r->mutable_continuations(1)->set_text(std::string(3 << 20, 'x')); }},
      {"prompt", "nothing", [](R r) { r->clear_prompt(); }},
      {"fusion.method", "9", [](R r) { r->mutable_fusion()->set_method(v1::FusionMethod(9)); }},
      {"fusion.weights", "1 weights",
       [](R r) {
         r->mutable_fusion()->set_method(v1::FUSION_METHOD_VOTE);
         r->mutable_fusion()->add_weights(1);
       }},
      {"request_id", "129 bytes", [](R r) { r->set_request_id(std::string(129, 'a')); }},
      {"priority", "101", [](R r) { r->set_priority(101); }},
  };
  FakeModelOptions model;
  model.num_kv_slots = 1 << 16;
  TestServer test(model);
  for (const BadCase& one : cases) {
    SCOPED_TRACE(one.field + " " + one.says);
    v1::ScoreRequest request = SimpleScoreRequest(v1::FUSION_METHOD_ATTENTION);
    one.change(&request);
    const grpc::Status status = Score(test, request).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldOf(status), one.field) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(one.says));
  }
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total"), std::size(cases));
  EXPECT_TRUE(Score(test, SimpleScoreRequest(v1::FUSION_METHOD_ATTENTION)).status.ok());
}

v1::ScoreRequest LongScoreRequest() {
  v1::ScoreRequest request = SimpleScoreRequest(v1::FUSION_METHOD_LOGIT_MAX);
  AddIds(&request, std::vector<int32_t>(1000, 7));
  return request;
}

TEST(ScoreCallTest, CallerThatLeavesAndDeadlineEndIt) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) { config->engine.max_step_rows = 16; });
  const v1::ScoreRequest request = LongScoreRequest();
  grpc::ClientContext context;
  v1::ScoreResponse response;
  auto status = std::async(std::launch::async,
                           [&] { return test.stub().Score(&context, request, &response); });
  gate.Open(3);
  gate.AwaitArrivals(4);
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);

  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(test.stub().Score(&late, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.OpenForGood();
  WaitUntil([&] {
    return test.Metric("chorus_requests_finished_total") +
               test.Metric("chorus_requests_rejected_total") >=
           2;
  });
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=cancelled"), 1);
  WaitUntil([&] { return test.server().engine().num_running() == 0; });  // counted a moment later
  EXPECT_TRUE(Score(test, request).status.ok());
}

TEST(ScoreCallTest, DrainLetsItEndAndTakesNoMore) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  const v1::ScoreRequest request = LongScoreRequest();
  auto running = std::async(std::launch::async, [&] { return Score(test, request).status; });
  gate.AwaitArrivals(1);
  auto drained =
      std::async(std::launch::async, [&] { return test.server().Drain(absl::Seconds(60)); });
  WaitUntil([&] { return test.Metric("chorus_draining") == 1; });
  gate.OpenForGood();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(drained.get());
  EXPECT_EQ(Score(test, request).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ScoreCallTest, AFullQueueRefusesIt) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) {
    config->engine.max_queued_requests = 1;
    config->engine.max_running_requests = 1;
  });
  const v1::ScoreRequest request = SimpleScoreRequest(v1::FUSION_METHOD_ATTENTION);
  auto running = std::async(std::launch::async, [&] { return Score(test, request).status; });
  gate.AwaitArrivals(1);
  auto waiting = std::async(std::launch::async, [&] { return Score(test, request).status; });
  WaitUntil([&] { return test.Metric("chorus_requests_accepted_total") == 2; });
  EXPECT_EQ(Score(test, request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  gate.OpenForGood();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(waiting.get().ok());
}

}  // namespace
}  // namespace chorus
