#include "client/many_call.h"

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"

#include "client/chorus_client.h"
#include "client/grpc_error.h"
#include "tests/client/fake_service.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

ChorusClient Connect(const FakeService& service) {
  absl::StatusOr<ChorusClient> client =
      ChorusClient::Connect(service.target(), {.deadline = absl::Minutes(4)});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// Gives `questions` one after another, under their index.
ChorusClient::NextRequest Give(std::vector<std::string> questions) {
  return [questions, index = size_t{0}](v1::GenerateManyRequest* message) mutable {
    if (index == questions.size()) return false;
    message->set_request_id(std::to_string(index));
    message->mutable_request()->mutable_prompt()->mutable_text()->set_question(questions[index++]);
    return true;
  };
}

TEST(ManyCallTest, EveryRequestGetsItsEventsAndABadOneEndsAlone) {
  FakeService service;
  service.events = PlainAnswer({"Par", "is"});
  ChorusClient client = Connect(service);
  std::map<std::string, std::string> texts;
  std::map<std::string, absl::Status> errors;
  const absl::Status status = client.GenerateMany(
      Give({"Why?", "bad", "Who?"}), [&](const v1::GenerateManyResponse& event) {
        texts[event.request_id()] += event.response().chunk().text();
        if (event.has_error()) errors[event.request_id()] = ToAbslStatus(event.error());
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(texts,
              ElementsAre(std::pair("0", "Paris"), std::pair("1", ""), std::pair("2", "Paris")));
  ASSERT_THAT(errors, testing::SizeIs(1));
  EXPECT_EQ(errors["1"].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(errors["1"].message(), "bad request (sampling.top_p: 1.5 must be in (0, 1])");
  ASSERT_EQ(service.requests().size(), 3u);
  EXPECT_EQ(service.requests()[2].prompt().text().question(), "Who?");
}

TEST(ManyCallTest, NoRequestsAreNoError) {
  FakeService service;
  ChorusClient client = Connect(service);
  EXPECT_TRUE(client.GenerateMany(Give({}), nullptr).ok());
}

TEST(ManyCallTest, NoMoreRequestsThanTheWindowAreUnderWay) {
  constexpr int kNumRequests = 200, kWindow = 3;
  FakeService service;
  service.events = PlainAnswer({"yes"});
  ChorusClient client = Connect(service);
  std::atomic<int> num_given{0}, num_ended{0}, most{0};
  const absl::Status status = client.GenerateMany(
      [&](v1::GenerateManyRequest* message) {
        if (num_given == kNumRequests) return false;
        message->set_request_id(std::to_string(++num_given));
        most = std::max(most.load(), num_given - num_ended);
        return true;
      },
      [&](const v1::GenerateManyResponse& event) {
        if (event.response().has_finish()) ++num_ended;
      },
      kWindow);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(num_ended, kNumRequests);
  EXPECT_LE(most, kWindow);
}

TEST(ManyCallTest, AStreamThatForgetsARequestIsAnError) {
  FakeService service;
  service.events = PlainAnswer({"yes"});
  ChorusClient client = Connect(service);
  const absl::Status status = client.GenerateMany(Give({"Why?", "lost"}), nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "the stream ended without the last message of 1 requests");
}

TEST(ManyCallTest, TheStreamsOwnEndIsReported) {
  FakeService service;
  service.events = PlainAnswer({"yes"});
  service.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  ChorusClient client = Connect(service);
  const absl::Status status = client.GenerateMany(Give({"Why?"}), nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "draining");
}

TEST(ManyCallTest, CancelEndsACallWhoseWindowIsFull) {
  FakeService service;
  ChorusClient client = Connect(service);
  Cancellation cancellation;
  absl::Notification is_full;
  absl::Status status;
  std::thread caller([&] {
    int num_given = 0;
    status = client.GenerateMany(
        [&](v1::GenerateManyRequest* message) {
          message->mutable_request()->mutable_prompt()->mutable_text()->set_question("lost");
          if (++num_given == 2) is_full.Notify();
          return true;
        },
        nullptr, /*window=*/2, &cancellation);
  });
  is_full.WaitForNotification();
  cancellation.Cancel();
  caller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

}  // namespace
}  // namespace chorus
