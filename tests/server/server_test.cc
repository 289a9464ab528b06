// The whole server on a fake model, through real gRPC on the loopback: streams, cancellation,
// deadlines, backpressure, drain, metrics.
#include "server/server.h"

#include <atomic>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "tests/engine/engine_test_support.h"
#include "tests/server/server_test_support.h"

namespace chorus {
namespace {

std::string StreamedText(const TestServer::Answer& answer) {
  std::string text;
  for (const auto& event : answer.events) text += event.chunk().text();
  return text;
}

TEST(ServerTest, StreamsPromptInfoThenChunksThenFinish) {
  TestServer test;
  v1::GenerateRequest request = SimpleGenerateRequest(12);
  request.set_request_id("my-id");
  request.mutable_sampling()->set_seed(7);
  const TestServer::Answer answer = test.Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  const v1::PromptInfo& info = answer.events.front().prompt_info();
  EXPECT_EQ(info.request_id(), "my-id");
  EXPECT_EQ(info.seed(), 7u);
  EXPECT_EQ(info.segment_tokens_size(), 3);
  EXPECT_GT(info.prompt_tokens(), 0);
  int num_ids = 0;
  for (size_t i = 1; i + 1 < answer.events.size(); ++i) {
    ASSERT_TRUE(answer.events[i].has_chunk());
    num_ids += answer.events[i].chunk().token_ids_size();
  }
  const v1::FinishInfo& finish = answer.finish();
  EXPECT_EQ(num_ids, 12);
  EXPECT_EQ(finish.token_ids_size(), 12);
  EXPECT_EQ(finish.text(), StreamedText(answer));
  EXPECT_EQ(finish.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(finish.usage().generated_tokens(), 12);
  EXPECT_EQ(finish.usage().prompt_tokens(), info.prompt_tokens());
  EXPECT_GE(finish.timing().total_seconds(), finish.timing().first_token_seconds());
}

TEST(ServerTest, DrawnSeedIsReportedAndGivesTheSameStreamAgain) {
  TestServer test;
  v1::GenerateRequest request = SimpleGenerateRequest(20);
  request.mutable_sampling()->set_temperature(1.0f);
  const TestServer::Answer first = test.Ask(request);
  ASSERT_TRUE(first.status.ok());
  const v1::PromptInfo& info = first.events.front().prompt_info();
  EXPECT_FALSE(info.request_id().empty());
  request.mutable_sampling()->set_seed(info.seed());
  EXPECT_EQ(test.Ask(request).finish().text(), first.finish().text());
}

TEST(ServerTest, EveryMethodAnswers) {
  TestServer test;
  for (int method = 1; method <= 7; ++method) {
    v1::GenerateRequest request = SimpleGenerateRequest(4);
    request.mutable_fusion()->set_method(static_cast<v1::FusionMethod>(method));
    request.mutable_response()->set_top_logprobs(2);
    const TestServer::Answer answer = test.Ask(request);
    ASSERT_TRUE(answer.status.ok()) << method << answer.status.error_message();
    const bool per_prompt = method >= v1::FUSION_METHOD_PER_PROMPT;
    EXPECT_EQ(answer.finish().prompts_size(), per_prompt ? 3 : 0);
    EXPECT_EQ(answer.finish().tally_size() > 0, method == v1::FUSION_METHOD_VOTE);
  }
}

TEST(ServerTest, TopLogprobsComeWithTheirSpelling) {
  TestServer test;
  v1::GenerateRequest request = SimpleGenerateRequest(1);
  request.mutable_response()->set_top_logprobs(3);
  const TestServer::Answer answer = test.Ask(request);
  ASSERT_TRUE(answer.status.ok());
  const v1::TokenChunk& chunk = answer.events[1].chunk();
  ASSERT_EQ(chunk.top_logprobs_size(), 1);
  ASSERT_EQ(chunk.top_logprobs(0).entries_size(), 3);
  EXPECT_EQ(chunk.top_logprobs(0).entries(0).token_id(), chunk.token_ids(0));
  EXPECT_EQ(chunk.top_logprobs(0).entries(0).logprob(), chunk.logprobs(0));
}

TEST(ServerTest, ClientThatLeavesTakesItsRowsOutOfTheBatch) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  grpc::ClientContext context;
  const auto reader = test.stub().Generate(&context, SimpleGenerateRequest(1000));
  gate.Open(3);
  gate.AwaitArrivals(4);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The server has heard of it once the reactor is gone; only then may the worker go on.
  gate.OpenForGood();
  WaitUntil([&] { return test.Metric("chorus_requests_finished_total") == 1; });
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=cancelled"), 1);
  EXPECT_LT(test.Metric("chorus_step_rows"), 1000);  // steps: it did not run to its end
  WaitUntil([&] { return test.server().engine().num_running() == 0; });  // counted a moment later
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(2)).status.ok());
}

TEST(ServerTest, DeadlineThatPassesWhileRunningEndsTheRequest) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto reader = test.stub().Generate(&context, SimpleGenerateRequest(1000));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.OpenForGood();
  WaitUntil([&] {
    return test.Metric("chorus_requests_finished_total") +
               test.Metric("chorus_requests_rejected_total") ==
           1;
  });
  // Whether it was let in depends on how late it came; cancelled it is not.
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=cancelled"), 0);
}

TEST(ServerTest, SlowReaderPausesItsRequestAndLosesNothing) {
  constexpr int kNumTokens = 3000;
  std::atomic<int64_t> num_steps{0};
  FakeModelOptions model;
  model.before_step = [&](const StepPlan&, int64_t) {
    ++num_steps;
    return absl::OkStatus();
  };
  TestServer test(model, [](ServerConfig* config) { config->network.stream_buffer_events = 8; });
  v1::GenerateRequest request = SimpleGenerateRequest(kNumTokens);
  request.mutable_response()->set_top_logprobs(20);  // some 300 bytes a chunk: windows fill early
  grpc::ClientContext context;
  const auto reader = test.stub().Generate(&context, request);
  WaitUntilAtRest(num_steps);  // nobody reads, and the answer is not whole
  EXPECT_LT(num_steps, kNumTokens);
  // Others are served meanwhile.
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(3)).status.ok());
  int num_ids = 0;
  v1::GenerateResponse event;
  while (reader->Read(&event)) num_ids += event.chunk().token_ids_size();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(num_ids, kNumTokens);
}

TEST(ServerTest, FullQueueIsRefusedWithRetryInfo) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) {
    config->engine.max_running_requests = 1;
    config->engine.max_queued_requests = 1;
  });
  auto running = std::async(std::launch::async, [&] { return test.Ask(SimpleGenerateRequest(2)); });
  gate.AwaitArrivals(1);
  auto waiting = std::async(std::launch::async, [&] { return test.Ask(SimpleGenerateRequest(2)); });
  WaitUntil([&] { return test.server().engine().num_waiting() == 1; });
  const grpc::Status status = test.Ask(SimpleGenerateRequest(2)).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_GE(retry.retry_delay().seconds(), 1);
  gate.OpenForGood();
  EXPECT_TRUE(running.get().status.ok());
  EXPECT_TRUE(waiting.get().status.ok());
}

TEST(ServerTest, DrainFinishesRunningStreamsAndTakesNoNewOnes) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  auto running = std::async(std::launch::async, [&] { return test.Ask(SimpleGenerateRequest(5)); });
  gate.AwaitArrivals(1);
  auto drained =
      std::async(std::launch::async, [&] { return test.server().Drain(absl::Hours(1)); });
  WaitUntil([&] { return test.Metric("chorus_draining") == 1; });
  WaitUntil([&] {
    return test.Ask(SimpleGenerateRequest(1)).status.error_code() == grpc::StatusCode::UNAVAILABLE;
  });
  gate.OpenForGood();
  EXPECT_TRUE(drained.get());
  const TestServer::Answer answer = running.get();
  EXPECT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.finish().token_ids_size(), 5);
}

TEST(ServerTest, DrainThatRunsOutOfTimeEndsStreamsWithUnavailable) {
  FakeModelOptions model;
  model.before_step = [](const StepPlan&, int64_t) {
    absl::SleepFor(absl::Milliseconds(20));
    return absl::OkStatus();
  };
  TestServer test(model);
  auto running =
      std::async(std::launch::async, [&] { return test.Ask(SimpleGenerateRequest(3000)); });
  WaitUntil([&] { return test.Metric("chorus_step_rows") > 0; });
  EXPECT_FALSE(test.server().Drain(absl::Milliseconds(10)));
  EXPECT_EQ(running.get().status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ServerTest, ServerThatGoesAwayMidStreamEndsItsCalls) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  auto test = std::make_unique<TestServer>(model);
  auto running =
      std::async(std::launch::async, [&] { return test->Ask(SimpleGenerateRequest(50)); });
  gate.Open(2);
  gate.AwaitArrivals(3);
  gate.OpenForGood();
  running.wait();
  test.reset();  // must not hang or touch freed streams (sanitizers look on)
}

TEST(ServerTest, ModelErrorEndsOnlyWhatItHit) {
  std::atomic<bool> fail{true};
  FakeModelOptions model;
  model.before_step = [&](const StepPlan&, int64_t) -> absl::Status {
    return fail ? absl::InternalError("broken") : absl::OkStatus();
  };
  TestServer test(model);
  EXPECT_EQ(test.Ask(SimpleGenerateRequest(2)).status.error_code(), grpc::StatusCode::INTERNAL);
  fail = false;
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(2)).status.ok());
}

TEST(ServerTest, LongTextsAreTokenisedOnThePoolAndAnswerAlike) {
  TestServer test;
  std::string text;
  for (int i = 0; i < 500; ++i) text += "the inner ring ";  // 7500 bytes
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  v1::TokenizeResponse tokens;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(test.stub().Tokenize(&context, tokenize, &tokens).ok());
  }
  EXPECT_EQ(tokens.token_ids_size(), tokens.tokens_size());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse back;
  grpc::ClientContext context;
  ASSERT_TRUE(test.stub().Detokenize(&context, detokenize, &back).ok());
  EXPECT_EQ(back.text(), text);
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_text()->set_question(text);
  request.mutable_stopping()->set_max_new_tokens(2);
  const TestServer::Answer answer = test.Ask(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.events.front().prompt_info().segment_tokens(0), tokens.token_ids_size());
}

TEST(ServerTest, ModelInfoSaysWhatIsServed) {
  TestServer test;
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(test.stub().GetModelInfo(&context, v1::GetModelInfoRequest(), &info).ok());
  EXPECT_EQ(info.vocab_size(), 300);
  EXPECT_EQ(info.context_length(), 4096);
  EXPECT_EQ(info.kv_slots(), 8192);
  EXPECT_EQ(info.template_(), v1::TEMPLATE_CHATML);
  EXPECT_THAT(info.eos_token_ids(), testing::ElementsAre(2));
  EXPECT_EQ(info.max_prompts(), 256);
  EXPECT_FALSE(info.server_version().empty());
}

TEST(ServerTest, AcceptedRequestsEqualTheSumOfTheirEnds) {
  TestServer test({}, [](ServerConfig* config) { config->model.workers = 2; });
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&test, client] {
      for (int i = 0; i < 10; ++i) {
        v1::GenerateRequest request = SimpleGenerateRequest(i % 3 == 2 ? 1500 : 5);
        if (i % 5 == 0) request.mutable_sampling()->set_top_p(2.0f);
        request.mutable_fusion()->set_method(static_cast<v1::FusionMethod>(1 + (i + client) % 7));
        grpc::ClientContext context;
        const auto reader = test.stub().Generate(&context, request);
        v1::GenerateResponse event;
        for (int read = 0; reader->Read(&event); ++read) {
          if (i % 3 == 2 && read == 2) context.TryCancel();
        }
        reader->Finish();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  WaitUntil([&] {
    return test.Metric("chorus_requests_accepted_total") +
                   test.Metric("chorus_requests_rejected_total") ==
               40 &&
           test.Metric("chorus_requests_accepted_total") ==
               test.Metric("chorus_requests_finished_total");
  });
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total", "reason=invalid"), 4 * 2);
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total"), 4 * 2);
  EXPECT_EQ(test.Metric("chorus_segments_per_request"),
            test.Metric("chorus_requests_accepted_total"));
  EXPECT_EQ(test.Metric("chorus_request_seconds"), test.Metric("chorus_requests_finished_total"));
}

TEST(ServerTest, BusyPortIsAPlainError) {
  TestServer first({},
                   [](ServerConfig* config) { config->network.metrics_listen = "127.0.0.1:0"; });
  Logger logger{LogConfig{"off", "text"}};
  ServerConfig config;
  config.network.listen = "127.0.0.1:" + std::to_string(first.server().grpc_port());
  config.network.metrics_listen = "";
  std::vector<std::unique_ptr<ModelRunner>> runners;
  runners.push_back(std::make_unique<FakeModelRunner>(FakeModelOptions()));
  const auto second =
      Server::Start(config, &TinyTokenizer(), TinyTextConfig(), std::move(runners), &logger);
  ASSERT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr("in use"));

  config.network.listen = "127.0.0.1:0";
  config.network.metrics_listen = "127.0.0.1:" + std::to_string(first.server().metrics_port());
  runners.clear();
  runners.push_back(std::make_unique<FakeModelRunner>(FakeModelOptions()));
  const auto third =
      Server::Start(config, &TinyTokenizer(), TinyTextConfig(), std::move(runners), &logger);
  ASSERT_EQ(third.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(third.status().message()), testing::HasSubstr("metrics_listen"));
}

// grpc.health.v1.HealthCheckRequest{service}, and the status of a HealthCheckResponse, as bytes.
std::string HealthRequest(const std::string& service) {
  return service.empty() ? ""
                         : "\x0A" + std::string(1, static_cast<char>(service.size())) + service;
}
const std::string kServing("\x08\x01", 2);
const std::string kNotServing("\x08\x02", 2);

TEST(HealthTest, CheckKnowsTheServerAndTheServiceAndNothingElse) {
  TestServer test;
  for (const std::string service : {"", "chorus.v1.Inference"}) {
    RawCall call(test.channel(), "/grpc.health.v1.Health/Check");
    call.Write(HealthRequest(service));
    EXPECT_EQ(call.Read(), kServing) << service;
    EXPECT_TRUE(call.Finish().ok());
  }
  RawCall call(test.channel(), "/grpc.health.v1.Health/Check");
  call.Write(HealthRequest("no.such.Service"));
  EXPECT_EQ(call.Read(), std::nullopt);
  EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(HealthTest, WatchHearsOfTheDrain) {
  TestServer test;
  RawCall watch(test.channel(), "/grpc.health.v1.Health/Watch");
  watch.Write(HealthRequest("chorus.v1.Inference"));
  EXPECT_EQ(watch.Read(), kServing);
  EXPECT_TRUE(test.server().Drain(absl::Seconds(30)));
  EXPECT_EQ(watch.Read(), kNotServing);
}

TEST(HealthTest, WatchHearsOfALostDevice) {
  FakeModelOptions model;
  model.before_step = [](const StepPlan&, int64_t) {
    return absl::UnavailableError("the GPU is lost");
  };
  TestServer test(model);
  RawCall watch(test.channel(), "/grpc.health.v1.Health/Watch");
  watch.Write(HealthRequest("chorus.v1.Inference"));
  EXPECT_EQ(watch.Read(), kServing);
  const grpc::Status status = test.Ask(SimpleGenerateRequest(4)).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the model step failed: the GPU is lost");
  EXPECT_EQ(watch.Read(), kNotServing);
}

TEST(HealthTest, DuringTheDrainDelayRequestsAreStillTakenThenRefused) {
  TestServer test({}, [](ServerConfig* config) {
    config->network.drain_delay = absl::Seconds(2);  // far longer than a fake answer takes
  });
  RawCall watch(test.channel(), "/grpc.health.v1.Health/Watch");
  watch.Write(HealthRequest("chorus.v1.Inference"));
  EXPECT_EQ(watch.Read(), kServing);
  auto drained =
      std::async(std::launch::async, [&] { return test.server().Drain(absl::Seconds(30)); });
  EXPECT_EQ(watch.Read(), kNotServing);
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(2)).status.ok());
  EXPECT_TRUE(drained.get());
  EXPECT_EQ(test.Ask(SimpleGenerateRequest(2)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ReflectionTest, ListsEveryService) {
  TestServer test;
  RawCall call(test.channel(), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  call.Write("\x3A\x01*");  // list_services: "*"
  const std::string reply = call.Read().value_or("");
  EXPECT_THAT(reply, testing::HasSubstr("chorus.v1.Inference"));
  EXPECT_THAT(reply, testing::HasSubstr("grpc.health.v1.Health"));
}

}  // namespace
}  // namespace chorus
