// GenerateMany through real gRPC on a fake model: many requests, bad ones among good ones, slow
// readers, callers that leave, drain.
#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

#include "tests/engine/engine_test_support.h"
#include "tests/server/server_test_support.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// What one id got.
struct Replies {
  std::vector<v1::GenerateResponse> events;
  std::vector<google::rpc::Status> errors;

  int num_ends() const {
    const auto is_finish = [](const v1::GenerateResponse& event) { return event.has_finish(); };
    return static_cast<int>(std::count_if(events.begin(), events.end(), is_finish)) +
           static_cast<int>(errors.size());
  }
  const v1::FinishInfo& finish() const { return events.back().finish(); }
  int error_code() const { return errors.empty() ? 0 : errors.back().code(); }
};

// One call. Send and Read may be used by two threads.
class ManyCall {
 public:
  explicit ManyCall(TestServer& server, absl::Duration deadline = absl::InfiniteDuration()) {
    if (deadline < absl::InfiniteDuration()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    }
    stream_ = server.stub().GenerateMany(&context_);
  }
  ~ManyCall() { context_.TryCancel(); }

  bool Send(const std::string& id, const v1::GenerateRequest& request) {
    v1::GenerateManyRequest message;
    message.set_request_id(id);
    *message.mutable_request() = request;
    return stream_->Write(message);
  }
  void HalfClose() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }

  // Reads one event; false at the end.
  bool Read() {
    v1::GenerateManyResponse message;
    if (!stream_->Read(&message)) return false;
    Replies& reply = replies_[message.request_id()];
    if (message.has_error()) reply.errors.push_back(message.error());
    if (message.has_response()) reply.events.push_back(message.response());
    return true;
  }
  void ReadUntil(const std::function<bool()>& condition) {
    while (!condition()) ASSERT_TRUE(Read());
  }
  grpc::Status ReadAll() {
    while (Read()) {
    }
    return stream_->Finish();
  }

  const Replies& operator[](const std::string& id) { return replies_[id]; }
  const std::map<std::string, Replies>& replies() const { return replies_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::GenerateManyRequest, v1::GenerateManyResponse>>
      stream_;
  std::map<std::string, Replies> replies_;
};

// The streamed ids and texts together are those of the last event, for every prompt.
void ExpectStreamedEqualsFinish(const Replies& reply) {
  ASSERT_TRUE(!reply.events.empty() && reply.events.back().has_finish());
  std::map<int32_t, std::string> texts;
  std::map<int32_t, std::vector<int32_t>> ids;
  for (const v1::GenerateResponse& event : reply.events) {
    const v1::TokenChunk& chunk = event.chunk();
    texts[chunk.prompt_index()] += chunk.text();
    auto& of_prompt = ids[chunk.prompt_index()];
    of_prompt.insert(of_prompt.end(), chunk.token_ids().begin(), chunk.token_ids().end());
    EXPECT_EQ(chunk.token_ids_size(), chunk.logprobs_size());
  }
  const v1::FinishInfo& finish = reply.finish();
  EXPECT_EQ(texts[0], finish.text());
  EXPECT_THAT(finish.token_ids(), testing::ElementsAreArray(ids[0]));
  for (int i = 1; texts.size() > 1 && i < finish.prompts_size(); ++i) {
    EXPECT_EQ(texts[i], finish.prompts(i).text());
    EXPECT_THAT(finish.prompts(i).token_ids(), testing::ElementsAreArray(ids[i]));
  }
}

google::rpc::BadRequest BadRequestOf(const google::rpc::Status& error) {
  google::rpc::BadRequest bad_request;
  EXPECT_TRUE(error.details_size() == 1 && error.details(0).UnpackTo(&bad_request));
  return bad_request;
}

TEST(GenerateManyTest, HundredsOfRequestsPassASmallQueueAndAnswerAsGenerateDoes) {
  constexpr int kNumKinds = 14, kNumRequests = 400;
  TestServer test({}, [](ServerConfig* config) {
    config->engine.max_queued_requests = 3;
    config->engine.max_running_requests = 5;
  });
  std::vector<v1::GenerateRequest> kinds;
  std::vector<v1::FinishInfo> expected;
  for (int i = 0; i < kNumKinds; ++i) {
    v1::GenerateRequest request = SimpleGenerateRequest(3 + i);
    request.mutable_fusion()->set_method(static_cast<v1::FusionMethod>(1 + i % 7));
    request.mutable_prompt()->mutable_text()->set_question(absl::StrCat("Question ", i, "?"));
    request.mutable_sampling()->set_temperature(i % 2 == 0 ? 0.0f : 1.0f);
    request.mutable_sampling()->set_seed(i);
    const TestServer::Answer answer = test.Ask(request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    kinds.push_back(request);
    expected.push_back(answer.finish());
  }
  ManyCall call(test);
  std::thread sender([&] {
    for (int i = 0; i < kNumRequests; ++i) call.Send(absl::StrCat("r", i), kinds[i % kNumKinds]);
    call.HalfClose();
  });
  EXPECT_TRUE(call.ReadAll().ok());
  sender.join();
  EXPECT_THAT(call.replies(), SizeIs(kNumRequests));
  for (int i = 0; i < kNumRequests; ++i) {
    const std::string id = absl::StrCat("r", i);
    ASSERT_EQ(call[id].num_ends(), 1) << id;
    ASSERT_EQ(call[id].errors.size(), 0u) << id;
    EXPECT_EQ(call[id].events.front().prompt_info().request_id(), id);
    EXPECT_EQ(call[id].finish().text(), expected[i % kNumKinds].text());
    EXPECT_THAT(call[id].finish().token_ids(),
                testing::ElementsAreArray(expected[i % kNumKinds].token_ids()));
    ExpectStreamedEqualsFinish(call[id]);
  }
  WaitUntil([&] { return test.Metric("chorus_requests_finished_total") == 414; });
  EXPECT_EQ(test.Metric("chorus_requests_accepted_total"), kNumKinds + kNumRequests);
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total"), 0);
}

TEST(GenerateManyTest, SeveralStreamsShareASmallQueue) {
  static constexpr int kNumStreams = 4, kNumRequests = 60;
  TestServer test({}, [](ServerConfig* config) {
    config->engine.max_queued_requests = 1;
    config->engine.max_running_requests = 2;
  });
  std::vector<std::thread> clients;
  for (int client = 0; client < kNumStreams; ++client) {
    clients.emplace_back([&test] {
      ManyCall call(test);
      for (int i = 0; i < kNumRequests; ++i) call.Send(std::to_string(i), SimpleGenerateRequest(2));
      call.HalfClose();
      EXPECT_TRUE(call.ReadAll().ok());
      EXPECT_THAT(call.replies(), SizeIs(kNumRequests));
      for (const auto& [id, reply] : call.replies()) EXPECT_EQ(reply.errors.size(), 0u);
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(test.Metric("chorus_requests_accepted_total"), kNumStreams * kNumRequests);
}

TEST(GenerateManyTest, NoMoreRequestsAreUnderWayThanAllowed) {
  std::atomic<Engine*> engine{nullptr};
  std::atomic<int> most{0};
  FakeModelOptions model;
  model.before_step = [&](const StepPlan&, int64_t) {
    if (engine != nullptr) {
      const int now = engine.load()->num_running() + engine.load()->num_waiting();
      most = std::max(most.load(), now);
    }
    return absl::OkStatus();
  };
  TestServer test(model, [](ServerConfig* config) { config->network.max_stream_requests = 3; });
  engine = &test.server().engine();
  ManyCall call(test);
  for (int i = 0; i < 50; ++i) call.Send(std::to_string(i), SimpleGenerateRequest(4));
  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_THAT(call.replies(), SizeIs(50));
  // A request leaves its stream as its last event is taken for writing, a little before the engine
  // has counted it out.
  EXPECT_LE(most, 2 * 3);
}

TEST(GenerateManyTest, BadRequestsEndAloneAndNameTheirField) {
  TestServer test;
  ManyCall call(test);
  v1::GenerateRequest bad = SimpleGenerateRequest(3);
  bad.mutable_sampling()->set_top_p(2.0f);
  v1::GenerateRequest inner_id = SimpleGenerateRequest(3);
  inner_id.set_request_id(std::string(500, 'x'));  // ignored
  call.Send("first", SimpleGenerateRequest(3));
  call.Send("bad value", bad);
  call.Send("no prompt", v1::GenerateRequest());
  call.Send("", SimpleGenerateRequest(3));
  call.Send(std::string(129, 'i'), SimpleGenerateRequest(3));
  call.Send("line\nbreak", SimpleGenerateRequest(3));
  call.Send("inner id", inner_id);
  call.Send("last", SimpleGenerateRequest(3));
  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_THAT(call.replies(), SizeIs(8));
  for (const auto& [id, reply] : call.replies()) EXPECT_EQ(reply.num_ends(), 1) << id;
  for (const std::string id : {"first", "inner id", "last"}) {
    ASSERT_EQ(call[id].errors.size(), 0u) << id;
    EXPECT_EQ(call[id].finish().token_ids_size(), 3);
    EXPECT_EQ(call[id].events.front().prompt_info().request_id(), id);
  }
  const std::map<std::string, std::string> fields = {{"bad value", "sampling.top_p"},
                                                     {"no prompt", "prompt"},
                                                     {"", "request_id"},
                                                     {std::string(128, 'i'), "request_id"},
                                                     {"line\nbreak", "request_id"}};
  for (const auto& [id, field] : fields) {
    ASSERT_EQ(call[id].error_code(), grpc::StatusCode::INVALID_ARGUMENT) << id;
    const google::rpc::BadRequest detail = BadRequestOf(call[id].errors.back());
    ASSERT_EQ(detail.field_violations_size(), 1) << id;
    EXPECT_EQ(detail.field_violations(0).field(), field) << id;
  }
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total", "reason=invalid"), 5);
}

// The wire form of a message, of which a valid text may be broken afterwards.
std::string Bytes(const std::string& id, const std::string& question) {
  v1::GenerateManyRequest message;
  message.set_request_id(id);
  *message.mutable_request() = SimpleGenerateRequest(2);
  message.mutable_request()->mutable_prompt()->mutable_text()->set_question(question);
  return message.SerializeAsString();
}

TEST(GenerateManyTest, AMessageThatCannotBeReadEndsAlone) {
  TestServer test;
  RawCall call(test.channel(), "/chorus.v1.Inference/GenerateMany");
  std::string not_utf8 = Bytes("broken", "MARK");
  not_utf8.replace(not_utf8.find("MARK"), 1, "\xFF");
  std::string bad_id = Bytes("MARK", "Why?");
  bad_id.replace(bad_id.find("MARK"), 1, "\xFF");
  for (const std::string& message :
       {not_utf8, bad_id, std::string("\xFF\xFF\xFF"), Bytes("good", "Why?")}) {
    call.Write(message);
  }
  std::map<std::string, int> codes;
  while (codes.size() < 4) {
    v1::GenerateManyResponse event;
    ASSERT_TRUE(event.ParseFromString(call.Read().value_or("\xFF")));
    if (event.has_error()) codes[event.request_id()] = event.error().code();
    if (event.response().has_finish()) codes[event.request_id()] = 0;
  }
  const int invalid = grpc::StatusCode::INVALID_ARGUMENT;
  EXPECT_THAT(codes, testing::ElementsAre(std::pair("", invalid), std::pair("?ARK", invalid),
                                          std::pair("broken", invalid), std::pair("good", 0)));
}

TEST(GenerateManyTest, AnIdThatStillRunsIsRefusedWithoutHarmToTheOld) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model);
  ManyCall call(test);
  call.Send("a", SimpleGenerateRequest(5));
  gate.AwaitArrivals(1);
  call.Send("a", SimpleGenerateRequest(2));
  call.ReadUntil([&] { return !call["a"].errors.empty(); });
  EXPECT_EQ(call["a"].error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(BadRequestOf(call["a"].errors[0]).field_violations(0).field(), "request_id");
  gate.OpenForGood();
  call.ReadUntil([&] { return call["a"].num_ends() == 2; });
  EXPECT_EQ(call["a"].finish().token_ids_size(), 5);
  // Once it has ended its id is free again.
  call.Send("a", SimpleGenerateRequest(2));
  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_EQ(call["a"].num_ends(), 3);
  EXPECT_EQ(call["a"].errors.size(), 1u);
  EXPECT_EQ(call["a"].finish().token_ids_size(), 2);
}

TEST(GenerateManyTest, HalfCloseWithoutARequestEndsWithOk) {
  TestServer test;
  ManyCall call(test);
  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_TRUE(call.replies().empty());
}

TEST(GenerateManyTest, ClientThatLeavesTakesAllItsRequestsWithIt) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) {
    config->engine.max_running_requests = 3;
    config->engine.max_queued_requests = 4;  // the rest waits in the stream
  });
  Engine& engine = test.server().engine();
  {
    ManyCall call(test);
    for (int i = 0; i < 20; ++i) call.Send(std::to_string(i), SimpleGenerateRequest(1000));
    gate.AwaitArrivals(1);
    gate.Open(3);
    call.ReadUntil([&] { return call["0"].events.size() >= 2; });
    WaitUntil([&] { return engine.num_waiting() == 4; });
    call.Cancel();
    EXPECT_EQ(call.ReadAll().error_code(), grpc::StatusCode::CANCELLED);
  }
  gate.OpenForGood();
  WaitUntil([&] { return engine.num_running() + engine.num_waiting() == 0; });
  EXPECT_EQ(test.Metric("chorus_requests_accepted_total"),
            test.Metric("chorus_requests_finished_total"));
  EXPECT_GT(test.Metric("chorus_requests_finished_total", "outcome=cancelled"), 0);
  EXPECT_LT(test.Metric("chorus_step_rows"), 1000);  // steps: nothing ran to its end
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(2)).status.ok());
}

TEST(GenerateManyTest, TheCallsDeadlineIsEveryRequests) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) { config->engine.max_running_requests = 1; });
  ManyCall call(test, absl::Milliseconds(300));
  for (int i = 0; i < 5; ++i) call.Send(std::to_string(i), SimpleGenerateRequest(1000));
  EXPECT_EQ(call.ReadAll().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.OpenForGood();
  Engine& engine = test.server().engine();
  WaitUntil([&] {
    return engine.num_running() + engine.num_waiting() == 0 &&
           test.Metric("chorus_requests_accepted_total") ==
               test.Metric("chorus_requests_finished_total");
  });
  EXPECT_EQ(test.Metric("chorus_requests_finished_total", "outcome=ok"), 0);
}

TEST(GenerateManyTest, SlowReaderPausesOnlyItselfAndGetsItAllInLargerMessages) {
  constexpr int kNumTokens = 1500, kNumRequests = 2;
  std::atomic<int64_t> num_steps{0};
  FakeModelOptions model;
  model.num_kv_slots = 1 << 15;  // all requests fit at once
  model.before_step = [&](const StepPlan&, int64_t) {
    ++num_steps;
    return absl::OkStatus();
  };
  TestServer test(model, [](ServerConfig* config) { config->network.stream_buffer_events = 8; });
  v1::GenerateRequest request = SimpleGenerateRequest(kNumTokens);
  request.mutable_response()->set_top_logprobs(20);  // some 300 bytes a token: windows fill early
  request.mutable_fusion()->set_method(v1::FUSION_METHOD_PER_PROMPT);
  ManyCall call(test);
  for (int i = 0; i < kNumRequests; ++i) call.Send(std::to_string(i), request);
  WaitUntilAtRest(num_steps);  // nobody reads, and the answers are not whole
  EXPECT_LT(num_steps, kNumTokens);
  EXPECT_EQ(test.server().engine().num_running(), kNumRequests);
  // Others are served meanwhile, by either rpc.
  EXPECT_TRUE(test.Ask(SimpleGenerateRequest(3)).status.ok());
  ManyCall other(test);
  other.Send("x", SimpleGenerateRequest(3));
  other.HalfClose();
  EXPECT_TRUE(other.ReadAll().ok());
  EXPECT_EQ(other["x"].finish().token_ids_size(), 3);

  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  int most_ids = 0;
  for (const auto& [id, reply] : call.replies()) {
    ExpectStreamedEqualsFinish(reply);
    EXPECT_EQ(reply.finish().token_ids_size(), kNumTokens);
    for (const auto& event : reply.events) {
      most_ids = std::max(most_ids, event.chunk().token_ids_size());
      EXPECT_EQ(event.chunk().token_ids_size(), event.chunk().top_logprobs_size());
    }
  }
  EXPECT_GT(most_ids, 1) << "what waited was not merged";
  // Three prompts of one request: the buffer's 8 and one step's.
  EXPECT_LE(most_ids, 8 + 1);
}

TEST(GenerateManyTest, LongTextsWaitForTheTokenizersAndAreAllAnswered) {
  FakeModelOptions model;
  model.max_positions = model.num_kv_slots = 1 << 15;
  TestServer test(model, [](ServerConfig* config) {
    config->network.tokenizer_threads = 1;
    config->network.tokenizer_queue = 1;
  });
  std::string text;
  for (int i = 0; i < 160; ++i) text += "a question of no importance that is long ";
  v1::GenerateRequest request = SimpleGenerateRequest(2);
  request.mutable_prompt()->mutable_text()->clear_paraphrases();
  request.mutable_prompt()->mutable_text()->set_question(text);
  ManyCall call(test);
  std::thread sender([&] {
    for (int i = 0; i < 40; ++i) {
      call.Send(std::to_string(i), i % 4 == 0 ? SimpleGenerateRequest(2) : request);
    }
    call.HalfClose();
  });
  EXPECT_TRUE(call.ReadAll().ok());
  sender.join();
  EXPECT_THAT(call.replies(), SizeIs(40));
  for (const auto& [id, reply] : call.replies()) {
    ASSERT_EQ(reply.errors.size(), 0u) << id << reply.errors.back().message();
    EXPECT_EQ(reply.finish().token_ids_size(), 2);
  }
}

TEST(GenerateManyTest, DrainFinishesWhatRunsAndRefusesTheRest) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  TestServer test(model, [](ServerConfig* config) {
    config->engine.max_running_requests = 1;
    config->engine.max_queued_requests = 1;
  });
  Engine& engine = test.server().engine();
  ManyCall call(test);
  for (const std::string id : {"running", "queued", "parked"}) {
    call.Send(id, SimpleGenerateRequest(4));
    if (id == "running") gate.AwaitArrivals(1);
    if (id == "queued") WaitUntil([&] { return engine.num_waiting() == 1; });
  }
  auto drained =
      std::async(std::launch::async, [&] { return test.server().Drain(absl::Hours(1)); });
  call.ReadUntil([&] { return call["parked"].num_ends() == 1; });
  EXPECT_EQ(call["parked"].error_code(), grpc::StatusCode::UNAVAILABLE);
  call.HalfClose();
  gate.OpenForGood();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_EQ(call["running"].finish().token_ids_size(), 4);
  EXPECT_EQ(call["queued"].finish().token_ids_size(), 4);
  EXPECT_TRUE(drained.get());
  EXPECT_EQ(test.Metric("chorus_requests_rejected_total", "reason=draining"), 1);
}

TEST(GenerateManyTest, AStreamThatNobodyClosesDoesNotHoldUpTheDrain) {
  TestServer test;
  ManyCall call(test);
  call.Send("a", SimpleGenerateRequest(2));
  call.ReadUntil([&] { return call["a"].num_ends() == 1; });
  EXPECT_TRUE(test.server().Drain(absl::Hours(1)));
  const grpc::Status status = call.ReadAll();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("draining"));
}

TEST(GenerateManyTest, ServerThatGoesAwayMidStreamEndsItsCalls) {
  Gate gate;
  FakeModelOptions model;
  model.before_step = gate.Hook();
  auto test = std::make_unique<TestServer>(
      model, [](ServerConfig* config) { config->engine.max_queued_requests = 2; });
  ManyCall call(*test);
  for (int i = 0; i < 200; ++i) call.Send(std::to_string(i), SimpleGenerateRequest(500));
  gate.Open(2);
  gate.AwaitArrivals(3);
  gate.OpenForGood();
  test.reset();  // must not hang or touch freed streams (sanitizers look on)
  EXPECT_FALSE(call.ReadAll().ok());
}

TEST(GenerateManyTest, ModelErrorEndsOnlyWhatItHit) {
  FakeModelOptions model;
  model.choice_status = [](const TokenChoice& choice) {
    return choice.sampling->seed == 13 ? absl::InternalError("broken") : absl::OkStatus();
  };
  TestServer test(model);
  ManyCall call(test);
  for (const int seed : {12, 13, 14}) {
    v1::GenerateRequest request = SimpleGenerateRequest(3);
    request.mutable_sampling()->set_seed(seed);
    call.Send(std::to_string(seed), request);
  }
  call.HalfClose();
  EXPECT_TRUE(call.ReadAll().ok());
  EXPECT_EQ(call["13"].error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(call["12"].finish().token_ids_size(), 3);
  EXPECT_EQ(call["14"].finish().token_ids_size(), 3);
}

}  // namespace
}  // namespace chorus
