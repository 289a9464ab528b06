#include "client/chorus_client.h"

#include <thread>

#include <gmock/gmock.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

#include "client/channel.h"
#include "client/grpc_error.h"
#include "tests/client/fake_service.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

v1::GenerateRequest Question() {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_text()->set_question("Why?");
  return request;
}

TEST(ChorusClientTest, GenerateCallsBackForEveryEventInOrderAndReturnsTheLast) {
  FakeService service;
  service.events = PlainAnswer({"Par", "is"});
  absl::StatusOr<ChorusClient> client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  std::vector<int> cases;
  std::string text;
  const auto finish = client->Generate(Question(), [&](const v1::GenerateResponse& event) {
    cases.push_back(event.event_case());
    text += event.chunk().text();
  });
  ASSERT_TRUE(finish.ok()) << finish.status();
  EXPECT_THAT(cases, ElementsAre(1, 2, 2, 3));
  EXPECT_EQ(text, "Paris");
  EXPECT_EQ(finish->text(), "Paris");
  EXPECT_THAT(finish->token_ids(), ElementsAre(1, 2));
  ASSERT_EQ(service.requests().size(), 1u);
  EXPECT_EQ(service.requests()[0].prompt().text().question(), "Why?");
}

TEST(ChorusClientTest, ErrorsKeepTheirCodeAndNameTheField) {
  FakeService service;
  service.status = BadField("bad request", "sampling.top_p", "1.5 must be in (0, 1]");
  auto client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  const absl::Status status = client->Generate(Question()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "bad request (sampling.top_p: 1.5 must be in (0, 1])");
}

TEST(ChorusClientTest, AStreamWithoutItsLastMessageIsAnError) {
  FakeService service;
  service.events = PlainAnswer({"Par"});
  service.events.pop_back();
  auto client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(client->Generate(Question()).status().code(), absl::StatusCode::kInternal);
}

TEST(ChorusClientTest, CancelEndsARunningCallFromAnotherThread) {
  FakeService service;
  service.events = PlainAnswer({"Par"});
  service.waits_for_cancel = true;
  auto client = ChorusClient::Connect(service.target(), {.deadline = absl::InfiniteDuration()});
  ASSERT_TRUE(client.ok()) << client.status();
  Cancellation cancellation;
  absl::Notification has_begun;
  absl::Status status;
  std::thread caller([&] {
    status = client
                 ->Generate(
                     Question(),
                     [&](const v1::GenerateResponse& event) {
                       if (event.has_prompt_info()) has_begun.Notify();
                     },
                     &cancellation)
                 .status();
  });
  has_begun.WaitForNotification();
  cancellation.Cancel();
  caller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  // Cancelled once, cancelled for good.
  EXPECT_EQ(client->Generate(Question(), nullptr, &cancellation).status().code(),
            absl::StatusCode::kCancelled);
}

TEST(ChorusClientTest, TheDeadlineEndsACallThatWouldNeverEnd) {
  FakeService service;
  service.waits_for_cancel = true;
  auto client = ChorusClient::Connect(service.target(), {.deadline = absl::Milliseconds(200)});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_EQ(client->Generate(Question()).status().code(), absl::StatusCode::kDeadlineExceeded);
}

// What one StartGenerate call said, gathered until its end.
struct Stream {
  std::vector<int> cases;
  absl::Status status;
  absl::Notification is_done;
};

StreamCallbacks GatherInto(Stream& stream, absl::Duration pause = absl::ZeroDuration()) {
  return {.on_event =
              [&stream, pause](const v1::GenerateResponse& event) {
                stream.cases.push_back(event.event_case());
                return pause;
              },
          .on_done =
              [&stream](const absl::Status& status) {
                stream.status = status;
                stream.is_done.Notify();
              }};
}

TEST(ChorusClientTest, StartedCallsRunBesideEachOtherWithoutAThreadEach) {
  FakeService service;
  service.events = PlainAnswer({"Par", "is"});
  auto client = ChorusClient::Connect(service.target(), {.has_own_connection = true});
  ASSERT_TRUE(client.ok()) << client.status();
  std::vector<Stream> streams(20);
  for (Stream& stream : streams) client->StartGenerate(Question(), GatherInto(stream));
  for (Stream& stream : streams) {
    stream.is_done.WaitForNotification();
    EXPECT_TRUE(stream.status.ok()) << stream.status;
    EXPECT_THAT(stream.cases, ElementsAre(1, 2, 2, 3));
  }
}

TEST(ChorusClientTest, AStartedCallThatPausesBetweenReadsMissesNothing) {
  FakeService service;
  service.events = PlainAnswer({"Par", "is"});
  auto client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  Stream stream;
  client->StartGenerate(Question(), GatherInto(stream, /*pause=*/absl::Milliseconds(2)));
  stream.is_done.WaitForNotification();
  EXPECT_TRUE(stream.status.ok()) << stream.status;
  EXPECT_THAT(stream.cases, ElementsAre(1, 2, 2, 3));
}

TEST(ChorusClientTest, AStartedCallEndsByCancelAlsoWhileItPauses) {
  for (const absl::Duration pause : {absl::ZeroDuration(), absl::Milliseconds(20)}) {
    FakeService service;
    service.events = PlainAnswer({"Par"});
    service.events.pop_back();
    service.waits_for_cancel = true;
    auto client = ChorusClient::Connect(service.target());
    ASSERT_TRUE(client.ok()) << client.status();
    Cancellation cancellation;
    Stream stream;
    client->StartGenerate(Question(), GatherInto(stream, pause), &cancellation);
    while (service.requests().empty()) absl::SleepFor(absl::Milliseconds(1));
    cancellation.Cancel();
    stream.is_done.WaitForNotification();
    EXPECT_EQ(stream.status.code(), absl::StatusCode::kCancelled) << stream.status;
  }
}

TEST(ChorusClientTest, AStartedCallWithoutItsLastMessageIsAnError) {
  FakeService service;
  auto client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  Stream stream;
  client->StartGenerate(Question(), GatherInto(stream));
  stream.is_done.WaitForNotification();
  EXPECT_EQ(stream.status.code(), absl::StatusCode::kInternal);
}

TEST(ChorusClientTest, ConnectNamesTheTargetThatDoesNotAnswer) {
  std::string target;
  {
    const FakeService closed;  // its port is free again, and nobody listens there
    target = closed.target();
  }
  const auto client = ChorusClient::Connect(target);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.status().message(), "no server answers at " + target);
}

TEST(ChorusClientTest, TokenizeDetokenizeAndInfoReturnTheServersAnswer) {
  FakeService service;
  auto client = ChorusClient::Connect(service.target());
  ASSERT_TRUE(client.ok()) << client.status();
  const auto plain = client->Tokenize("<s>");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_THAT(plain->token_ids(), ElementsAre('<', 's', '>'));
  const auto special = client->Tokenize("<s>", /*recognize_special=*/true);
  ASSERT_TRUE(special.ok()) << special.status();
  EXPECT_THAT(special->token_ids(), ElementsAre(256));
  EXPECT_EQ(client->Detokenize({'H', 256, 'i'}).value(), "H<s>i");
  EXPECT_EQ(client->Detokenize({'H', 256, 'i'}, /*skip_special=*/true).value(), "Hi");
  EXPECT_EQ(client->Detokenize({999}).status().message(),
            "bad token id (token_ids: must be in [0, 257))");
  EXPECT_EQ(client->GetModelInfo().value().name(), "fake");
}

TEST(GrpcErrorTest, DetailsAlreadyInTheMessageAreNotRepeated) {
  const std::string message = "sampling.top_p: 1.5 must be in (0, 1]";
  EXPECT_EQ(ToAbslStatus(BadField(message, "sampling.top_p", "1.5 must be in (0, 1]")).message(),
            message);
}

TEST(GrpcErrorTest, RetryDelayIsReadable) {
  google::rpc::RetryInfo retry_info;
  retry_info.mutable_retry_delay()->set_seconds(1);
  retry_info.mutable_retry_delay()->set_nanos(500000000);
  google::rpc::Status details;
  details.add_details()->PackFrom(retry_info);
  const absl::Status status = ToAbslStatus(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                                        "queue full", details.SerializeAsString()));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "queue full (try again in 1.5s)");
}

TEST(GrpcErrorTest, UnreadableDetailsLeaveCodeAndMessage) {
  const absl::Status status =
      ToAbslStatus(grpc::Status(grpc::StatusCode::INTERNAL, "two\nlines", "\xFF\xFF garbage"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "two lines");
}

TEST(ChorusClientTest, ATokenLeavesTheMachineOnlyEncrypted) {
  for (const char* target : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:socket",
                             "dns:localhost:1", "dns:///localhost:1"}) {
    EXPECT_TRUE(IsLocalTarget(target)) << target;
  }
  for (const char* target : {"10.0.0.1:1", "host:1", "127.example.org:1", "localhost.example:1",
                             "[2001:db8::1]:1", "dns:///host:1"}) {
    EXPECT_FALSE(IsLocalTarget(target)) << target;
    const auto client = ChorusClient::Connect(target, {.token = "token-0123456789"});
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument) << target;
  }
}

}  // namespace
}  // namespace chorus
